"""Small named documents: locks, facts about base images, what is known about layers. Kept where the images are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prebuilt.core.errors import InvalidValueError
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
