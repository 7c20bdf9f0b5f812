"""What Kaniko and the cluster say: made readable as it comes; the last lines are kept for the error."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable

from prebuilt.core.build_service import KEPT_LINES
from prebuilt.core.errors import redact

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ERROR = "Error: "
_USAGE = "Usage:"
_OF_USAGE = re.compile(r"\s.*|Available Commands:|Flags:|Global Flags:|Use \"\S+ \[command\].*")


class KanikoOutput:
    """Lines of one build. Any thread may call it."""

    def __init__(self, show: Callable[[str], None]) -> None:
        """Pass readable lines on to `show`."""
        self._show = show
        self._lock = threading.Lock()
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self._is_usage = False

    def __call__(self, line: str) -> None:
        """Take one line."""
        text = redact(_ESCAPE.sub("", line).rstrip())
        if not text:
            return
        with self._lock:
            if self._is_of_usage(text):
                return
            self._last.append(text)
            self._show(text)

    def _is_of_usage(self, text: str) -> bool:
        """Return whether a line is of the list of all flags, with which Kaniko buries an error that it has before it builds."""
        if self._is_usage:
            self._is_usage = _OF_USAGE.fullmatch(text) is not None
        elif text == _USAGE and self._last and self._last[-1].startswith(_ERROR):
            self._is_usage = True
        return self._is_usage

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        with self._lock:
            return tuple(self._last)
