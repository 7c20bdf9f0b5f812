"""The progress of a build for somebody who gave an ``echo`` alone."""

from __future__ import annotations

from collections.abc import Callable


class EchoedProgress:
    """An image's progress that passes on lines and notes, and no more. Any thread may call it."""

    def __init__(self, echo: Callable[..., None]) -> None:
        """Pass on to `echo`."""
        self._echo = echo

    def state(self, text: str) -> None:
        """Pass it on."""
        self._echo(text)

    def add_total(self, size_bytes: int) -> None:
        """Nothing: bytes are not counted."""

    def advance(self, size_bytes: int) -> None:
        """Nothing: bytes are not counted."""

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
