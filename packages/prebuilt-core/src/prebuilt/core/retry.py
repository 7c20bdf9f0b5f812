"""How often to try again and how to wait: one policy for everything that talks over a network."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

LONGEST_WAIT_S = 120.0
"""A server that asks for more (Docker Hub's limits are for hours) is not waited for: the user is told."""

_SLICE_S = 0.2  # how soon a wait notices that it should stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential waiting with full jitter: up to `base_s`, then twice that, and so on, never more than `limit_s`.

    Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """

    attempts: int = 5
    base_s: float = 0.5
    limit_s: float = 30.0
    jitter: Callable[[], float] = random.random

    def waits_s(self) -> Iterator[float]:
        """Yield the seconds to wait before each further attempt: `attempts` - 1 values."""
        for attempt in range(self.attempts - 1):
            yield self.jitter() * min(self.limit_s, self.base_s * 2**attempt)


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (a number or an HTTP date), however many; None if there is none.

    Who waits compares them with :data:`LONGEST_WAIT_S`.

    Source: RFC 9110, section 10.2.3
    """
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def pause(wait_s: float, check: Callable[[], None] = lambda: None) -> None:
    """Return after `wait_s` seconds; `check` is called before and several times a second meanwhile, and raises to stop."""
    end_s = time.monotonic() + wait_s
    while True:
        check()
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(left_s, _SLICE_S))
