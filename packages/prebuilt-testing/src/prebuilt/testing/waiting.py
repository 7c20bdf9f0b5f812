"""Waiting for what other threads, processes and machines do: as long as a busy machine may need, and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

_LOOK_S = 0.02


def eventually(
    look: Callable[[], Seen | None],
    *,
    within_s: float = 60.0,
    every_s: float = _LOOK_S,
    said: Callable[[], object] | None = None,
) -> Seen:
    """Look again and again until there is something (what `look` returns is true); return it.

    Args:
        look: Sees nothing at first.
        within_s: How long to wait.
        every_s: How long to pause between looks: longer where a look starts a program, which others could use the processor for.
        said: What the error tells.

    Raises:
        AssertionError: There was nothing within `within_s` seconds; it tells what `said` returns.
    """
    deadline_s = time.monotonic() + within_s
    while not (seen := look()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"nothing within {within_s:g} s{'' if said is None else f': {said()}'}")
        time.sleep(every_s)
    return seen


def eventually_gone(look: Callable[[], object], *, within_s: float = 60.0, every_s: float = _LOOK_S) -> None:
    """Look again and again until there is nothing (what `look` returns is false): what is killed takes its time.

    Args:
        look: Sees what is to go.
        within_s: How long to wait.
        every_s: How long to pause between looks.

    Raises:
        AssertionError: Something was there after `within_s` seconds; it tells what.
    """
    left: object = None

    def is_gone() -> bool:
        nonlocal left
        left = look()
        return not left

    eventually(is_gone, within_s=within_s, every_s=every_s, said=lambda: f"there is still {left!r}")
