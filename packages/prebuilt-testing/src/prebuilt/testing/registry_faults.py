"""Faults that a test switches on in an in-memory registry: what real registries and networks do on bad days."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FaultKind = Literal["status", "truncate", "corrupt", "drop", "delay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What to do to requests of `method` whose path (with its query) matches `path`.

    Attributes:
        kind: ``status`` answers with `status`; ``truncate`` sends the first `after_bytes` of the body and cuts the
            connection; ``corrupt`` flips the body's last byte; ``drop`` cuts the connection after `after_bytes` of the
            request's body were read; ``delay`` waits `delay_s` seconds and goes on as usual.
        method: ``*`` is every method.
        times: How many requests it meets; then it is over.
    """

    kind: FaultKind
    method: str
    path: re.Pattern[str]
    times: int
    status: int = 500
    code: str = ""
    message: str = "a fault that the test switched on"
    headers: Mapping[str, str] = field(default_factory=dict)
    after_bytes: int = 0
    delay_s: float = 0.0

    def meets(self, method: str, path: str) -> bool:
        """Return whether a request is one of those."""
        return self.method in {"*", method} and self.path.search(path) is not None


class Faults:
    """The faults that are on. Safe to use from several threads."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._left: dict[int, tuple[Fault, int]] = {}
        self._count = 0

    def add(self, fault: Fault) -> None:
        """Switch `fault` on, after those that are on already."""
        with self._lock:
            self._left[self._count] = (fault, fault.times)
            self._count += 1

    def take(self, method: str, path: str, *kinds: FaultKind) -> Fault | None:
        """Return the first fault of `kinds` that meets the request, and use it up once."""
        with self._lock:
            for key, (fault, left) in self._left.items():
                if fault.kind in kinds and fault.meets(method, path):
                    if left > 1:
                        self._left[key] = (fault, left - 1)
                    else:
                        del self._left[key]
                    return fault
        return None

    def clear(self) -> None:
        """Switch all off."""
        with self._lock:
            self._left.clear()
