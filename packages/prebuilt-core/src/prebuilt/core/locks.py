"""Locks are resolved once and kept: the same requirements give the same lock until somebody asks for a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.lock import Lock
from prebuilt.core.progress import Progress
from prebuilt.core.requirements import Requirements


class Resolver(Protocol):
    """Turns requirements into a lock. Concurrent calls are fine."""

    def resolve(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
        """Resolve anew, for the target of `requirements`; `check` is called now and then, and raises to stop.

        Raises:
            ResolveError: There is no solution; the message names the packages.
        """


@dataclass(frozen=True, kw_only=True)
class Locks:
    """Locks by their requirements. Concurrent calls are fine.

    Attributes:
        documents: Where they are kept.
        refresh: Resolve anew even where one is kept, and keep the new one.
    """

    resolver: Resolver
    documents: DocumentStore
    progress: Progress
    refresh: bool = False

    def get(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
        """Return the kept lock of `requirements`, or resolve and keep one; `check` is called meanwhile, and raises to stop.

        Raises:
            ResolveError: There is no solution.
        """
        name = f"lock-{requirements.req_id}"
        kept = None if self.refresh else self.documents.get(name)
        if kept is not None:
            try:
                return Lock.parse(kept)
            except InvalidValueError as error:
                self.progress.note(f"prebuilt: a kept lock is not used: {error}")
        lock = self.resolver.resolve(requirements, check=check)
        self.documents.put(name, lock.to_bytes())
        return lock
