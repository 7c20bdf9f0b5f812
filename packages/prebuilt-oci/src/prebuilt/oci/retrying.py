"""Trying again what failed in passing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from prebuilt.core.errors import RegistryError
from prebuilt.core.retry import Backoff

_log = logging.getLogger(__name__)

T = TypeVar("T")
Sleep = Callable[[float], object]


class TransientError(Exception):
    """What failed may work when it is tried again; never leaves this package.

    Attributes:
        error: What the user is told if it does not.
        retry_after_s: How long the registry wants us to wait; None where it did not say.
    """

    def __init__(self, error: RegistryError, retry_after_s: float | None = None) -> None:
        """Keep both."""
        self.error, self.retry_after_s = error, retry_after_s
        super().__init__(str(error))


def with_retries(work: Callable[[], T], *, backoff: Backoff, sleep: Sleep) -> T:
    """Return what `work` returns; try it again, after a wait, each time it raises :class:`TransientError`.

    Raises:
        RegistryError: The one inside the last :class:`TransientError`.
    """
    waits_s = backoff.waits_s()
    while True:
        try:
            return work()
        except TransientError as transient:
            wait_s = next(waits_s, None)
            if wait_s is None:
                raise transient.error from transient
            if transient.retry_after_s is not None:
                wait_s = transient.retry_after_s
            _log.info("trying again in %.1f s: %s", wait_s, transient)
        sleep(wait_s)
