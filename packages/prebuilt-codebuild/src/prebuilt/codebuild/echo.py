"""Progress for callers of the published form, who have an ``echo`` and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from prebuilt.core.progress import ImageProgress


class EchoProgress:
    """Passes lines and notes on to `echo`, and each state once."""

    def __init__(self, echo: Callable[..., None]) -> None:
        """Use `echo`, which takes a message."""
        self._echo = echo
        self._state = ""

    def state(self, text: str) -> None:
        """Pass it on if it is news."""
        if text != self._state:
            self._state = text
            self._echo(text)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._echo(text)

    def output(self, line: str) -> None:
        """Pass it on."""
        self._echo(line)

    def add_total(self, size_bytes: int) -> None:
        """Bytes are not counted."""

    def advance(self, size_bytes: int) -> None:
        """Bytes are not counted."""

    def done(self, text: str) -> None:
        """Pass it on."""
        self._echo(text)

    def failed(self, text: str) -> None:
        """Pass it on."""
        self._echo(text)


_: type[ImageProgress] = EchoProgress
