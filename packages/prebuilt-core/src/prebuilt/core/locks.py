"""Locks are resolved once and kept: the same requirements give the same lock until somebody asks for a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import DigestMismatchError, InvalidValueError
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.progress import Progress
from prebuilt.core.requirements import Requirements
from prebuilt.core.storage import storage_errors

MAX_WHEEL_BYTES = 32 << 20
"""Larger wheels are not kept beside locks: documents are small, and are read as a whole. What is built here is pure Python."""


class Resolver(Protocol):
    """Turns requirements into a lock. Concurrent calls are fine."""

    def resolve(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
        """Resolve anew, for the target of `requirements`; `check` is called now and then, and raises to stop.

        Raises:
            ResolveError: There is no solution; the message names the packages.
        """


class LocalWheels(Protocol):
    """Wheels that no URL serves, as they are on this machine. Concurrent calls are fine."""

    def path(self, sha256: str, filename: str) -> Path | None:
        """Return where the wheel of that hash is, or None if it is not here."""

    def keep(self, wheel: Wheel, data: bytes) -> None:
        """Keep the wheel, of which `data` is the checked content."""


@dataclass(frozen=True, kw_only=True)
class Locks:
    """Locks by their requirements. Concurrent calls are fine.

    Attributes:
        documents: Where they are kept.
        refresh: Resolve anew even where one is kept, and keep the new one.
        wheels: Where this machine has wheels that no URL serves. They are kept beside the locks that name them, and come from there
            to machines that lack them; None: they are not.
    """

    resolver: Resolver
    documents: DocumentStore
    progress: Progress
    refresh: bool = False
    wheels: LocalWheels | None = None

    def get(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
        """Return the kept lock of `requirements`, or resolve and keep one; `check` is called meanwhile, and raises to stop.

        Raises:
            ResolveError: There is no solution.
        """
        name = f"lock-{requirements.req_id}"
        kept = None if self.refresh else self.documents.get(name)
        if kept is not None:
            try:
                lock = Lock.parse(kept)
            except InvalidValueError as error:
                self.progress.note(f"prebuilt: a kept lock is not used: {error}")
            else:
                self._bring_wheels(lock)
                return lock
        lock = self.resolver.resolve(requirements, check=check)
        self._keep_wheels(lock)  # first: whoever finds the lock finds them too
        self.documents.put(name, lock.to_bytes())
        return lock

    def _keep_wheels(self, lock: Lock) -> None:
        """Keep the wheels of `lock` that no URL serves beside it."""
        for wheel in _without_url(lock):
            path = self.wheels.path(wheel.sha256, wheel.filename) if self.wheels is not None else None
            if path is None:
                continue
            if wheel.size_bytes > MAX_WHEEL_BYTES:
                self.progress.note(
                    f"prebuilt: {wheel.filename} ({wheel.size_bytes / 1e6:.0f} MB) is not kept beside the lock, and other machines will"
                    " lack it: put it on a package index"
                )
                continue
            with storage_errors(f"read {wheel.filename}", path):
                self.documents.put(_wheel_name(wheel), path.read_bytes())

    def _bring_wheels(self, lock: Lock) -> None:
        """Fetch the wheels of `lock` that no URL serves and this machine lacks. Who needs one that is nowhere says so."""
        for wheel in _without_url(lock):
            if self.wheels is None or self.wheels.path(wheel.sha256, wheel.filename) is not None:
                continue
            data = self.documents.get(_wheel_name(wheel))
            if data is None:
                continue
            actual = hashlib.sha256(data).hexdigest()
            if actual != wheel.sha256:
                raise DigestMismatchError(
                    f"fetch {wheel.filename}",
                    expected=f"sha256:{wheel.sha256}",
                    actual=f"sha256:{actual}",
                    remedy="resolve again, with METAFLOW_PREBUILT_REFRESH=1",
                )
            self.wheels.keep(wheel, data)


def _without_url(lock: Lock) -> list[Wheel]:
    return [package for package in lock.packages if isinstance(package, Wheel) and not package.url]


def _wheel_name(wheel: Wheel) -> str:
    return f"wheel-{wheel.sha256}"
