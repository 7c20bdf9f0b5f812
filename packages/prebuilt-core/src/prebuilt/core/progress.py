"""What users see while images are baked."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol, TextIO

_REDRAW_S = 0.1
_TICK_S = 1.0  # seconds are counted on each line, also while nothing else happens


class ImageProgress(Protocol):
    """Progress of one image. All methods may be called from any thread."""

    def state(self, text: str) -> None:
        """Say what is being done now: ``resolving``, ``layer numpy``."""

    def add_total(self, size_bytes: int) -> None:
        """Announce bytes of work: package bytes to turn into layers, base bytes to copy."""

    def advance(self, size_bytes: int) -> None:
        """Report announced bytes as done."""

    def note(self, text: str) -> None:
        """Say one thing about this image that the user should know, once."""

    def output(self, line: str) -> None:
        """Pass on one line of what a builder says."""

    def done(self, text: str) -> None:
        """Finish well, with one line that says what came out."""

    def failed(self, text: str) -> None:
        """Finish badly."""


class Progress(Protocol):
    """Where images report to, and where one-line notes go."""

    def image(self, title: str) -> ImageProgress:
        """Start reporting on one image; `title` names its steps."""

    def note(self, text: str) -> None:
        """Say one thing that the user should know, once."""


class LineProgress:
    """One line when an image starts and one when it is done: for logs, pipes and tests."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        """Write each line with `echo`."""
        self._echo = echo
        self._lock = threading.Lock()

    def image(self, title: str) -> ImageProgress:
        """Return progress that says only start and end."""
        return _LineImage(title, self.note)

    def note(self, text: str) -> None:
        """Write the line."""
        with self._lock:
            self._echo(text)


class _LineImage:
    def __init__(self, title: str, write: Callable[[str], None]) -> None:
        self._title, self._write, self._started, self._began_s = title, write, False, time.monotonic()

    def state(self, text: str) -> None:
        if not self._started:
            self._started = True
            self._write(f"{self._title}: {text}")

    def add_total(self, size_bytes: int) -> None:
        pass

    def advance(self, size_bytes: int) -> None:
        pass

    def note(self, text: str) -> None:
        self._write(f"{self._title}: {text}")

    def output(self, line: str) -> None:
        self._write(f"{self._title} | {line}")

    def done(self, text: str) -> None:
        self._write(f"{self._title}: {text} ({time.monotonic() - self._began_s:.1f} s)")

    def failed(self, text: str) -> None:
        self._write(f"{self._title}: failed: {text}")


class EchoProgress:
    """Progress of one image for callers of the published form: lines, notes and news of its state go to their ``echo``."""

    def __init__(self, echo: Callable[..., None]) -> None:
        """Pass on to `echo`, which takes a message."""
        self._echo = echo
        self._state = ""

    def state(self, text: str) -> None:
        """Pass it on if it is news."""
        if text != self._state:
            self._state = text
            self._echo(text)

    def add_total(self, size_bytes: int) -> None:
        """Bytes are not counted."""

    def advance(self, size_bytes: int) -> None:
        """Bytes are not counted."""

    def note(self, text: str) -> None:
        """Pass it on."""
        self._echo(text)

    def output(self, line: str) -> None:
        """Pass it on."""
        self._echo(line)

    def done(self, text: str) -> None:
        """Pass it on."""
        self._echo(text)

    def failed(self, text: str) -> None:
        """Pass it on."""
        self._echo(text)


class TerminalProgress:
    """One live line for each image on a terminal, redrawn in place; finished lines stay above. Plain text without colour."""

    def __init__(self, stream: TextIO = sys.stderr, *, width: Callable[[], int]) -> None:
        """Draw on `stream`, no line longer than `width()` columns."""
        self._stream, self._width = stream, width
        self._lock = threading.Lock()
        self._live: list[_TerminalImage] = []
        self._drawn = 0
        self._drawn_at_s = 0.0
        self._ticker: threading.Thread | None = None

    def image(self, title: str) -> ImageProgress:
        """Add a live line."""
        image = _TerminalImage(title, self)
        with self._lock:
            self._live.append(image)
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._tick, daemon=True, name="progress")
                self._ticker.start()
        return image

    def note(self, text: str) -> None:
        """Write a line above the live ones."""
        with self._lock:
            self._redraw(finished=text)

    def changed(self) -> None:
        """Redraw, but not more often than the eye can follow."""
        with self._lock:
            if time.monotonic() - self._drawn_at_s >= _REDRAW_S:
                self._redraw()

    def finish(self, image: _TerminalImage, line: str) -> None:
        """Move an image from the live lines to the finished ones."""
        with self._lock:
            self._live = [live for live in self._live if live is not image]
            self._redraw(finished=line)

    def _tick(self) -> None:
        """Redraw now and then while images are live: a build that says nothing for long is not to look as if it hung."""
        while True:
            time.sleep(_TICK_S)
            with self._lock:
                if not self._live:
                    self._ticker = None
                    return
                if time.monotonic() - self._drawn_at_s >= _TICK_S:
                    self._redraw()

    def _redraw(self, finished: str | None = None) -> None:
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        lines = [f"{finished}\n"] if finished is not None else []
        lines += [image.line(self._width()) + "\n" for image in self._live]
        self._stream.write(f"\r{up}\x1b[J" + "".join(lines))
        self._stream.flush()
        self._drawn, self._drawn_at_s = len(self._live), time.monotonic()


class _TerminalImage:
    def __init__(self, title: str, screen: TerminalProgress) -> None:
        self._title, self._screen = title, screen
        self._state, self._total, self._done, self._began_s = "", 0, 0, time.monotonic()
        self._lock = threading.Lock()

    def state(self, text: str) -> None:
        self._state = text
        self._screen.changed()

    def add_total(self, size_bytes: int) -> None:
        with self._lock:
            self._total += size_bytes
        self._screen.changed()

    def advance(self, size_bytes: int) -> None:
        with self._lock:
            self._done += size_bytes
        self._screen.changed()

    def note(self, text: str) -> None:
        self._screen.note(f"{self._title}: {text}")

    def output(self, line: str) -> None:
        self._screen.note(f"{self._title} | {line}")

    def done(self, text: str) -> None:
        self._screen.finish(self, f"{self._title}: {text} ({time.monotonic() - self._began_s:.1f} s)")

    def failed(self, text: str) -> None:
        self._screen.finish(self, f"{self._title}: failed: {text}")

    def line(self, width: int) -> str:
        left = f", {(self._total - self._done) / 1e6:.1f} MB left" if self._total > self._done else ""
        text = f"{self._title}: {self._state}{left} ({time.monotonic() - self._began_s:.0f} s)"
        return text if len(text) < width else text[: width - 2] + "…"
