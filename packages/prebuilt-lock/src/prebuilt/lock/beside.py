"""Threads for a part of a resolution; when one part fails, the others are told to stop."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from prebuilt.core.build_service import Cancellation
from prebuilt.lock.download import Check


@contextmanager
def beside(workers: int, check: Check) -> Iterator[tuple[ThreadPoolExecutor, Check]]:
    """Give threads, and what their work has to call now and then: it raises when `check` does, or when the body has failed.

    Without the latter, who leaves the body by Ctrl-C would wait for all of it.
    """
    stop = Cancellation()

    def look() -> None:
        check()
        stop.check()

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="resolve") as pool:
        try:
            yield pool, look
        except BaseException:
            stop.cancel()
            raise
