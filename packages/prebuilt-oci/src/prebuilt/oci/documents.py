"""Small documents beside the images: each is an OCI artifact whose tag is the document's name."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import DocumentStore, check_document_name
from prebuilt.core.errors import DigestMismatchError, InvalidValueError
from prebuilt.oci.image import descriptor_of, parse_json_object
from prebuilt.oci.media_types import OCI_EMPTY, OCI_MANIFEST
from prebuilt.oci.repository import Repository

ARTIFACT_TYPE = "application/vnd.metaflow-prebuilt.document.v1+json"
TITLE = "org.opencontainers.image.title"

MAX_EMBEDDED_BYTES = 1 << 20
"""Up to here the document is in the manifest too. Registries take manifests of 4 MiB; base64 makes a third more of it."""

_EMPTY = b"{}"


@dataclass(frozen=True, slots=True)
class RepositoryDocuments:
    """Documents in a repository: one request to read a small one. Concurrent calls are fine; the last writer wins.

    Source: https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage, and
    https://github.com/opencontainers/image-spec/blob/main/descriptor.md#embedded-content for ``data``.
    """

    repository: Repository
    media_type: str = "application/json"

    def get(self, name: str) -> bytes | None:
        """Return the document, checked against its digest; None if there is none.

        Raises:
            RegistryError: The repository could not be asked.
            DigestMismatchError: It is damaged.
            InvalidValueError: The tag names something else, an image for one.
        """
        manifest = self.repository.get_manifest(check_document_name(name))
        if manifest is None:
            return None
        layer = _document_layer(parse_json_object(manifest.data, "a document"), name)
        descriptor = Descriptor.from_json(layer)
        if "data" in layer:
            return _embedded(layer["data"], descriptor, f"{self.repository.name}:{name}")
        with self.repository.open_blob(descriptor) as chunks:
            return b"".join(chunks)

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`, in place of what was there.

        Raises:
            RegistryError: The repository could not be asked, or refused.
        """
        tag = check_document_name(name)
        empty, document = descriptor_of(_EMPTY, OCI_EMPTY), descriptor_of(data, self.media_type)
        self.repository.push_blob(empty, lambda: io.BytesIO(_EMPTY))
        self.repository.push_blob(document, lambda: io.BytesIO(data))  # also if embedded: registries look for it
        self.repository.put_manifest(tag, OCI_MANIFEST, _manifest(name, empty, document, data))


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


def _manifest(name: str, empty: Descriptor, document: Descriptor, data: bytes) -> bytes:
    layer = document.to_json() | {"annotations": {TITLE: name}}
    if document.size <= MAX_EMBEDDED_BYTES:
        layer["data"] = base64.b64encode(data).decode()
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": empty.to_json() | {"data": base64.b64encode(_EMPTY).decode()},
            "layers": [layer],
        }
    )


def _document_layer(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    layers = manifest.get("layers")
    if manifest.get("artifactType") != ARTIFACT_TYPE or not isinstance(layers, list) or len(layers) != 1:
        reason = "its tag names something that is not a document"
        raise InvalidValueError("a document", name, reason=reason, remedy="delete that tag from the repository")
    return dict(layers[0])


def _embedded(encoded: str, descriptor: Descriptor, place: str) -> bytes:
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidValueError("a document", place, reason=f"its data is not base64: {error}") from error
    actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if (actual, len(data)) != (descriptor.digest, descriptor.size):
        raise DigestMismatchError("read a document", at=place, expected=descriptor.digest, actual=actual)
    return data


_: type[DocumentStore] = RepositoryWithDocuments
