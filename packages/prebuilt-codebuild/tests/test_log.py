"""The log of a build: pages of CloudWatch, as they are documented and as moto never has them."""

from __future__ import annotations

from typing import Any

import pytest

from prebuilt.codebuild.log import BuildLog
from prebuilt.codebuild.state import LogPlace
from prebuilt.core.build_service import Cancellation

PLACE = LogPlace(group="/aws/codebuild/builds", stream="one")


class Pages:
    """CloudWatch with some pages; the last one's token leads to itself."""

    def __init__(self, *pages: list[str]) -> None:
        """Keep the messages of each page."""
        self.pages = pages

    def get_log_events(self, *, nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803 - the API's name
        """Return the page that a token leads to."""
        number = int(nextToken)
        messages = self.pages[number] if number < len(self.pages) else []
        following = min(number + 1, len(self.pages))
        return {"events": [{"message": each} for each in messages], "nextForwardToken": str(following)}


def test_an_empty_page_is_not_the_end() -> None:
    """Pages in the middle may be empty: one look shows all that is there."""
    shown: list[str] = []
    log = BuildLog(Pages(["one\n"], [], ["two\r\n", "three\n"]), shown.append, shown.append)
    assert log.look(PLACE)
    assert shown == ["one", "two", "three"]
    assert not log.look(PLACE)


class Silent(Pages):
    """CloudWatch that throttles until it has been asked so many times."""

    def __init__(self, times: int) -> None:
        """Answer after `times` refusals."""
        super().__init__(["one\n"])
        self.left = times

    def get_log_events(self, **asked: Any) -> dict[str, Any]:
        """Refuse, or answer."""
        from botocore.exceptions import ClientError

        if self.left:
            self.left -= 1
            answer = {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}
            raise ClientError(answer, "GetLogEvents")
        return super().get_log_events(**asked)


@pytest.mark.parametrize("looks", [0, 3, 30])
def test_a_log_that_can_never_be_read_says_why(looks: int) -> None:
    """However short the build was, one note has what AWS said; nobody is sent to look at the project's role."""
    notes: list[str] = []
    log = BuildLog(Silent(1000), notes.append, notes.append)
    for _ in range(looks):
        assert not log.look(PLACE)
    log.finish(PLACE, Cancellation(), wait=False)
    (note,) = notes
    assert "Rate exceeded" in note
    assert "PutLogEvents" not in note


def test_a_log_that_can_be_read_again_is_shown() -> None:
    """A failure or two are nothing to tell: the next look has all the lines."""
    shown: list[str] = []
    notes: list[str] = []
    log = BuildLog(Silent(2), shown.append, notes.append)
    for _ in range(3):
        log.look(PLACE)
    log.finish(PLACE, Cancellation(), wait=False)
    assert (shown, notes) == (["one"], [])


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_nobody_waits_for_the_rest_of_a_log_who_has_cancelled(
    monkeypatch: pytest.MonkeyPatch, clock: Any, *, is_cancelled: bool
) -> None:
    """What CloudWatch may yet show is waited for, unless other work has failed or Ctrl-C was pressed."""
    pages = Pages([])
    looks: list[int] = []
    monkeypatch.setattr(pages, "get_log_events", lambda **_: looks.append(1) or {"events": [], "nextForwardToken": "0"})
    if is_cancelled:
        clock.cancel()
    BuildLog(pages, print, print).finish(PLACE, clock, wait=True)
    assert (len(looks) > 3) is not is_cancelled


def test_the_last_lines_are_waited_for(clock: Any) -> None:
    """CloudWatch may show what a build said last only some seconds after it has failed."""
    pages, shown = Pages(["an early line"]), list[str]()

    def show_late() -> None:
        if clock.now_s == 3:
            pages.pages = (["an early line"], ["why it failed"])

    clock.then = show_late
    BuildLog(pages, shown.append, shown.append).finish(PLACE, clock, wait=True)
    assert shown == ["an early line", "why it failed"]
