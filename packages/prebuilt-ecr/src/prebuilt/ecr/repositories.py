"""The repositories of a registry, made when they are missing."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

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
