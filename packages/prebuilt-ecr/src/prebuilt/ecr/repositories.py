"""The repositories of a registry, made when they are missing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from prebuilt.core.documents import DocumentStore
from prebuilt.ecr.api import ECRApi


@dataclass(slots=True)
class Repositories:
    """Makes each repository that is missing. Concurrent calls are fine; each repository is asked for once."""

    api: ECRApi
    _there: set[tuple[str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ensure(self, account: str, name: str, *, holds_images: bool) -> None:
        """Return when the repository is there.

        Raises:
            RegistryError: It cannot be looked for or made.
        """
        with self._lock:
            if (account, name) in self._there:
                return
            if not self.api.has_repository(name, account):
                self.api.create_repository(name, account, holds_images=holds_images)
            self._there.add((account, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryWithDocuments:
    """Documents in a repository that is made when the first is written.

    A repository that is not there has no documents.

    Attributes:
        documents: Those in the repository.
        ensure: Returns when the repository is there.
    """

    documents: DocumentStore
    ensure: Callable[[], None]

    def get(self, name: str) -> bytes | None:
        """Return the document; None if there is none."""
        return self.documents.get(name)

    def put(self, name: str, data: bytes) -> None:
        """Keep the document."""
        self.ensure()
        self.documents.put(name, data)


_: type[DocumentStore] = RepositoryWithDocuments
