"""What users see."""

from __future__ import annotations

import io
import re
import time

import pytest

from prebuilt.core.progress import EchoProgress, LineProgress, TerminalProgress
from prebuilt.testing.waiting import eventually


def test_elsewhere_than_on_a_terminal_an_image_takes_two_lines() -> None:
    """One when it starts, one when it is done; what is between is not said."""
    lines: list[str] = []
    image = LineProgress(lines.append).image("train")
    image.state("building")
    image.state("layer numpy")
    image.add_total(10)
    image.advance(10)
    image.done("image pushed")
    assert lines[0] == "train: building"
    assert lines[1].startswith("train: image pushed (")
    assert len(lines) == 2


def test_a_failure_is_said() -> None:
    """The lines name the image; a note comes before the end."""
    lines: list[str] = []
    image = LineProgress(lines.append).image("train")
    image.note("two packages own one file")
    image.failed("disk full")
    assert lines == ["train: two packages own one file", "train: failed: disk full"]


def test_callers_of_the_published_form_hear_all_but_bytes() -> None:
    """States that are no news are passed on once."""
    said: list[str] = []
    image = EchoProgress(said.append)
    image.state("building")
    image.state("building")
    image.add_total(10)
    image.advance(10)
    image.output("#1 step")
    image.note("careful")
    image.done("pushed")
    image.failed("no")
    assert said == ["building", "#1 step", "careful", "pushed", "no"]


def test_on_a_terminal_live_lines_are_redrawn_and_finished_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes left are shown, lines fit the width, and at the end no live line is left."""
    monkeypatch.setattr("prebuilt.core.progress._REDRAW_S", 0)  # each change is drawn, however soon it comes
    stream = io.StringIO()
    progress = TerminalProgress(stream, width=lambda: 40)
    one, two = progress.image("a"), progress.image("b" * 60)
    one.add_total(5_000_000)
    one.state("layer numpy")
    assert "a: layer numpy, 5.0 MB left" in stream.getvalue()
    assert max(len(line) for line in stream.getvalue().splitlines() if line.startswith("b")) < 40
    one.advance(5_000_000)
    progress.note("prebuilt: hello")
    one.note("careful")
    one.done("pushed")
    two.failed("no")
    text = stream.getvalue()
    assert "prebuilt: hello\n" in text
    assert "a: careful\n" in text
    last = text.rpartition("\x1b[J")[2]
    assert last.endswith("failed: no\n")
    assert last.count("\n") == 1


def test_on_a_terminal_seconds_pass_while_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live line shows that time goes on; when no image is live any more, nothing is drawn."""
    monkeypatch.setattr("prebuilt.core.progress._TICK_S", 0.05)
    stream = io.StringIO()
    image = TerminalProgress(stream, width=lambda: 40).image("a")
    image.state("building")
    seconds = re.compile(r"a: building \([1-9]\d* s\)")  # a machine that stalls may never draw the first one
    eventually(lambda: seconds.search(stream.getvalue()), said=stream.getvalue)
    image.done("pushed")
    drawn = stream.getvalue()
    time.sleep(0.2)
    assert stream.getvalue() == drawn
