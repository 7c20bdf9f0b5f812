"""How often to try again and how long to wait: one policy for everything that talks over a network."""

from __future__ import annotations

import email.utils
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

_MAX_RETRY_AFTER_S = 120.0  # a server that asks for more is told to the user instead


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
    """Return the seconds that a ``Retry-After`` header asks for (a number or an HTTP date), at most 120; None if there is none.

    Source: RFC 9110, section 10.2.3
    """
    if not value:
        return None
    if value.strip().isdigit():
        return min(float(value), _MAX_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return min(max(0.0, (moment - datetime.now(timezone.utc)).total_seconds()), _MAX_RETRY_AFTER_S)
