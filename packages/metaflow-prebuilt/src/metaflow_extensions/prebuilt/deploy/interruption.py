"""Ctrl-C while a flow is deployed: the first one stops what is under way, the second one ends the process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


@contextlib.contextmanager
def at_once_the_second_time() -> Iterator[None]:
    """Have the first Ctrl-C in the body raise ``KeyboardInterrupt`` as ever, and every later one end this process.

    What is under way may take as long to notice the first as a server is given to answer. Everything is written by rename and
    checked when read, so that ending the process does no harm; waiting for its threads would, in the user's eyes. A process that is
    deaf to Ctrl-C, as those are that a script starts in the background, stays so.
    """
    in_main_thread = (
        threading.current_thread() is threading.main_thread()
    )  # others may not set handlers, and get no Ctrl-C
    if not in_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return

    def stop(_: int, __: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, before)
