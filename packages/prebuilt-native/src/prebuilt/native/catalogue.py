"""What is known about the layers of a repository: a document kept where the registry keeps documents."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor, check_digest
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import DigestMismatchError, PrebuiltError
from prebuilt.core.spec import ImageSpec

MAX_ENTRIES = 3000
"""The oldest go first. An entry is at most 340 bytes, so that reading a full catalogue is still one request of a megabyte."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLayer:
    """A layer that was pushed once.

    Attributes:
        descriptor: What is in the repository.
        diff_id: Digest of its uncompressed tar.
        file_list: Id of the list that has the files of its packages; empty if there is none.
    """

    descriptor: Descriptor
    diff_id: str
    file_list: str = ""

    def __post_init__(self) -> None:
        """Check the diff_id."""
        check_digest(self.diff_id)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form; the inverse of :meth:`from_json`."""
        listed = {"files": self.file_list} if self.file_list else {}
        return {**self.descriptor.to_json(), "diffID": self.diff_id, **listed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KnownLayer:
        """Read what :meth:`to_json` wrote."""
        return cls(
            descriptor=Descriptor.from_json(data), diff_id=data["diffID"], file_list=str(data.get("files") or "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Layers by their key, for one platform and Python.

    A hint: what it says must be checked against the repository before it is used, and what it lacks can be built. Two
    writers at once may lose entries of one of them, which costs time later and nothing else.
    """

    documents: DocumentStore
    name: str

    @classmethod
    def of(cls, spec: ImageSpec, documents: DocumentStore) -> Catalogue:
        """Return the catalogue in which the layers of `spec` are."""
        python = spec.lock.python_xy
        return cls(documents=documents, name=f"layers-v1-{spec.base.platform.subdir}-py{python}-{spec.compression}")

    def read(self) -> dict[str, KnownLayer]:
        """Return all entries, oldest first; none where there is no catalogue, or one that is damaged.

        Raises:
            RegistryError: The place could not be asked.
            StorageError: The file could not be read.
        """
        try:
            data = self.documents.get(self.name)
            if data is None:
                return {}
            return {key: KnownLayer.from_json(layer) for key, layer in json.loads(data)["layers"]}
        except (DigestMismatchError, ValueError, KeyError, TypeError) as error:  # InvalidValueError is a ValueError
            _log.warning("the catalogue %s is damaged and will be written anew: %s", self.name, error)
            return {}

    def add(self, layers: Mapping[str, KnownLayer]) -> None:
        """Write the entries that are there now and `layers`, unless all of them are there.

        What cannot be read or kept is logged and no more, so that a build's own error is the one that is told: a repository may
        forbid to move tags, and the layers are pushed all the same. They will be made again by those who do not find them.
        """
        if not layers:
            return
        try:
            there = self.read()
            if all(there.get(key) == layer for key, layer in layers.items()):
                return
            merged = list({**there, **layers}.items())[-MAX_ENTRIES:]
            data = canonical_json({"layers": [[key, layer.to_json()] for key, layer in merged]})
            self.documents.put(self.name, data)
        except PrebuiltError as error:
            _log.warning("the catalogue %s could not be written: %s", self.name, error)
