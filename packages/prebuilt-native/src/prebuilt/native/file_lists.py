"""Lists of the files in layers, kept beside the catalogue: who reuses a layer need not download it to know them."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from dataclasses import dataclass

from prebuilt.core.canonical import canonical_json
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import PrebuiltError
from prebuilt.native.owners import Files

_ID_LENGTH = 16
"""Hex digits. Each catalogue entry has one, and of all lists of a repository no two will have the same 64 bits."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLists:
    """One list for the layers of each bake, named by its content, some 6 bytes for each file.

    A hint, as the catalogue is: a list that is lost, damaged or refused costs a warning about owners, and no image.
    """

    documents: DocumentStore

    def read(self, list_id: str) -> Files:
        """Return the list; one without packages where it cannot be had."""
        try:
            data = self.documents.get(_name(list_id))
            if data is None:
                return {}
            return {package: frozenset(paths) for package, paths in json.loads(zlib.decompress(data)).items()}
        except (PrebuiltError, zlib.error, ValueError, TypeError, AttributeError) as error:
            _log.warning("the list of files %s cannot be read: %s", list_id, error)
            return {}

    def write(self, files: Files) -> str:
        """Keep a list and return its id; an empty one where there is nothing to keep, or it was refused."""
        if not files:
            return ""
        plain = canonical_json({package: sorted(paths) for package, paths in files.items()})
        list_id = hashlib.sha256(plain).hexdigest()[:_ID_LENGTH]
        try:
            self.documents.put(_name(list_id), zlib.compress(plain))
        except PrebuiltError as error:
            _log.warning("the list of files %s could not be written: %s", list_id, error)
            return ""
        return list_id


def _name(list_id: str) -> str:
    return f"files-v1-{list_id}"
