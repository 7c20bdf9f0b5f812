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


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_nobody_waits_for_the_rest_of_a_log_who_has_cancelled(
    monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool
) -> None:
    """What CloudWatch may yet show is waited for, unless other work has failed or Ctrl-C was pressed."""
    monkeypatch.setattr("prebuilt.codebuild.log._LOOK_S", 0.05)
    monkeypatch.setattr("prebuilt.codebuild.log._SETTLING_S", 0.3)
    pages = Pages([])
    looks: list[int] = []
    monkeypatch.setattr(pages, "get_log_events", lambda **_: looks.append(1) or {"events": [], "nextForwardToken": "0"})
    cancellation = Cancellation()
    if is_cancelled:
        cancellation.cancel()
    BuildLog(pages, print, print).finish(PLACE, cancellation, wait=True)
    assert (len(looks) > 3) is not is_cancelled
