"""Small named documents: locks, facts about base images, what is known about layers. Kept where the images are."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prebuilt.core.errors import ForbiddenError, InvalidValueError, UnauthorizedError
from prebuilt.core.storage import read_if_there, write_atomically

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,119}")  # must also serve as the tag of an OCI artifact


def check_document_name(name: str) -> str:
    """Return `name` if it can be a file name and a tag."""
    if not _NAME.fullmatch(name):
        raise InvalidValueError("a document name", name, reason="expected at most 120 of a-z 0-9 . _ -")
    return name


class DocumentStore(Protocol):
    """Named documents of at most a few MB, a wheel that no index has among them. Concurrent calls are fine; the last writer wins.

    Errors of the place behind it (:class:`~prebuilt.core.errors.RegistryError`,
    :class:`~prebuilt.core.errors.StorageError`) are raised, never read as absence.
    """

    def get(self, name: str) -> bytes | None:
        """Return the document, checked against its digest; None if there is none of that name."""

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, in place of what was there."""


@dataclass(frozen=True, slots=True)
class FolderDocuments:
    """Documents as files of one folder: for registries behind which no API is known, and as a cache."""

    folder: Path

    def get(self, name: str) -> bytes | None:
        """Return the file's bytes."""
        return read_if_there(self.folder / check_document_name(name))

    def put(self, name: str, data: bytes) -> None:
        """Write the file by rename."""
        write_atomically(self.folder / check_document_name(name), data)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFirstDocuments:
    """Documents of another place, of which this machine keeps what it has seen: that is read without asking there.

    For work that needs no registry. Somebody else's newer document is not seen until this machine asks again, or makes one itself.

    Attributes:
        asks: Whether the other place is asked all the same: work that reaches it anyway shall agree with what it has.
    """

    near: DocumentStore
    far: DocumentStore
    asks: bool = False

    def get(self, name: str) -> bytes | None:
        """Return the document that is kept here, or else the other place's."""
        kept = None if self.asks else self.near.get(name)
        if kept is None:
            kept = self.far.get(name)
            if kept is not None:
                self.near.put(name, kept)
        return kept

    def put(self, name: str, data: bytes) -> None:
        """Keep the document here and there."""
        self.near.put(name, data)
        self.far.put(name, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedIfAllowed:
    """Documents that are not kept where the place does not let us write; `note` is told so, once."""

    documents: DocumentStore
    note: Callable[[str], None]
    _untold: threading.Lock = field(default_factory=threading.Lock)  # taken by who tells

    def get(self, name: str) -> bytes | None:
        """Return the document."""
        return self.documents.get(name)

    def put(self, name: str, data: bytes) -> None:
        """Keep the document if we may."""
        try:
            self.documents.put(name, data)
        except (UnauthorizedError, ForbiddenError) as error:
            if self._untold.acquire(blocking=False):
                self.note(f"prebuilt: what was found out is not shared with others: {error}")


_: tuple[type[DocumentStore], ...] = (FolderDocuments, LocalFirstDocuments, SharedIfAllowed)
