"""A clock for what must not depend on how busy the machine is."""

from __future__ import annotations


class Clock:
    """Stands still until a test sets it; called, it returns the time.

    Attributes:
        now_s: The time.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s
