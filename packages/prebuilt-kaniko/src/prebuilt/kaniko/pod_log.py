"""The log of a container, from its first line to its last, over as many connections as that takes."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

OpenLog = Callable[["int | None"], Any]
"""Opens the stream of a log, of the last seconds or from its beginning."""

_MARGIN_S = 15  # lines may come late: what is asked for again and was there already is dropped
_PAUSE_S = 0.5
_STOP_S = 2.0  # for a connection that is being made; the thread ends by itself after that
_DIGITS = 9  # of a fraction of a second


class PodLog:
    """Follows a log in a thread of its own. Cut connections are made anew; no line is lost, none is shown twice."""

    def __init__(self, open_log: OpenLog, show: Callable[[str], None]) -> None:
        """Pass each line on to `show`, without its time."""
        self._open, self._show = open_log, show
        self._over, self._stopped = threading.Event(), threading.Event()
        self._response: Any = None
        self._last, self._count = "", 0
        self._heard_s: float | None = None
        self._thread = threading.Thread(target=self._follow, name="kaniko-log", daemon=True)
        self.failure: Exception | None = None

    def start(self) -> None:
        """Begin, if that was not done already."""
        if self._thread.ident is None:
            self._thread.start()

    def finish(self, timeout_s: float) -> bool:
        """Read on to the end of a container that has ended, but not for longer than `timeout_s`; return whether that was its end."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        is_whole = not self._thread.is_alive()
        self.stop()
        return is_whole

    def stop(self) -> None:
        """Stop, wherever it is."""
        self._stopped.set()
        response = self._response
        if response is not None:
            with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has ended meanwhile
                response.shutdown()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def _follow(self) -> None:
        import urllib3
        from kubernetes.client import ApiException

        while not self._stopped.is_set():
            # Only what is asked for now is known to reach to the end: a server that goes away may close a stream well.
            is_last = self._over.is_set()
            try:
                self._read()
            except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                if getattr(error, "status", None) in {401, 403}:
                    self.failure = error
                    return
                if is_last and getattr(error, "status", None) == 404:  # noqa: PLR2004 - the pod is gone, with its log
                    return
            else:
                if is_last:
                    return
            self._stopped.wait(_PAUSE_S)

    def _read(self) -> None:
        """Read one stream to its end."""
        since_s = None
        if self._heard_s is not None:
            since_s = math.ceil(time.monotonic() - self._heard_s) + _MARGIN_S
        response = self._open(since_s)
        self._response = response
        try:
            if self._stopped.is_set():
                return
            repeated, is_resuming = self._count, bool(self._last)
            for line in _lines(response):
                if self._stopped.is_set():
                    return
                moment, _, text = line.partition(" ")
                key = _sortable(moment)
                if is_resuming and key < self._last:
                    continue
                if is_resuming and key == self._last and repeated:
                    repeated -= 1
                    continue
                is_resuming = False
                self._take(key, text)
        finally:
            self._response = None
            response.close()

    def _take(self, key: str, text: str) -> None:
        self._count = self._count + 1 if key == self._last else 1
        self._last, self._heard_s = key, time.monotonic()
        self._show(text)


def _lines(response: Any) -> Iterator[str]:  # noqa: ANN401 - urllib3's
    """Yield whole lines as they come; what is left at the end is one if the stream ended well."""
    rest = b""
    for chunk in response.stream(decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _sortable(moment: str) -> str:
    """Return an RFC 3339 time in UTC so that a later one is greater: their fractions differ in length."""
    seconds, _, fraction = moment.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<{_DIGITS}}"
