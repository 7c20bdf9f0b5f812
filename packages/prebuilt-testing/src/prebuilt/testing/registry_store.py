"""What an in-memory registry holds: blobs, manifests, tags and unfinished uploads of its repositories."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prebuilt.core.descriptor import Descriptor
from prebuilt.oci.media_types import INDEXES


def sha256_digest(data: bytes) -> str:
    """Return the digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class RefusedError(Exception):
    """The registry says no; becomes an answer with `status` and the error `code` of the specification."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Keep what the answer says."""
        self.status, self.code, self.message, self.headers = status, code, message, headers
        super().__init__(message)


@dataclass(slots=True)
class StoredManifest:
    """A manifest as it was put."""

    media_type: str
    data: bytes


@dataclass(slots=True)
class StoredRepository:
    """Contents of one repository, by digest; tags name digests."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, StoredManifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class RegistryStore:
    """Repositories by name, made when first written to. Safe to use from several threads."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.RLock()
        self._repositories: dict[str, StoredRepository] = {}
        self._uploads: dict[str, bytearray] = {}

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._repositories.clear()
            self._uploads.clear()

    def repository(self, name: str) -> StoredRepository:
        """Return the repository called `name`."""
        with self._lock:
            return self._repositories.setdefault(name, StoredRepository())

    def blob(self, repository: str, digest: str) -> bytes:
        """Return a blob's bytes."""
        try:
            return self.repository(repository).blobs[digest]
        except KeyError:
            raise RefusedError(404, "BLOB_UNKNOWN", "blob unknown to registry") from None

    def put_blob(self, repository: str, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        """Keep a blob."""
        digest = sha256_digest(data)
        with self._lock:
            self.repository(repository).blobs[digest] = data
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Link a blob from another repository; return whether that has it."""
        with self._lock:
            data = self.repository(source).blobs.get(digest)
            if data is not None:
                self.repository(repository).blobs[digest] = data
            return data is not None

    def manifest(self, repository: str, reference: str) -> tuple[str, StoredManifest]:
        """Return the digest and the manifest that a tag or digest names."""
        with self._lock:
            held = self.repository(repository)
            digest = held.tags.get(reference, reference)
            if digest not in held.manifests:
                raise RefusedError(404, "MANIFEST_UNKNOWN", f"manifest unknown: {reference}")
            return digest, held.manifests[digest]

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> Descriptor:
        """Keep a manifest under its digest and, if `reference` is a tag, under that."""
        digest = sha256_digest(data)
        if reference.startswith("sha256:") and reference != digest:
            raise RefusedError(400, "DIGEST_INVALID", f"the manifest's digest is {digest}")
        with self._lock:
            held = self.repository(repository)
            self._check_complete(held, media_type, data)
            held.manifests[digest] = StoredManifest(media_type, data)
            if reference != digest:
                held.tags[reference] = digest
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    @staticmethod
    def _check_complete(held: StoredRepository, media_type: str, data: bytes) -> None:
        try:
            wanted = list(_referenced(json.loads(data), media_type))
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(400, "MANIFEST_INVALID", f"manifest invalid: {error!r}") from error
        there = held.manifests if media_type in INDEXES else held.blobs
        for digest in wanted:
            if digest not in there:
                raise RefusedError(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {digest}")

    def start_upload(self) -> str:
        """Return the id of a new upload."""
        with self._lock:
            upload = secrets.token_hex(8)
            self._uploads[upload] = bytearray()
            return upload

    def upload(self, upload: str) -> bytearray:
        """Return what an upload has received so far; append to it."""
        with self._lock:
            try:
                return self._uploads[upload]
            except KeyError:
                raise RefusedError(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry") from None

    def end_upload(self, upload: str) -> bytes:
        """Return all that an upload received, and forget it."""
        with self._lock:
            data = bytes(self.upload(upload))
            del self._uploads[upload]
            return data

    @property
    def unfinished_uploads(self) -> int:
        """How many uploads were begun and neither finished nor cancelled."""
        return len(self._uploads)


def _referenced(manifest: dict[str, Any], media_type: str) -> Iterator[str]:
    """Yield the digests that must be there before `manifest` may be put."""
    children = manifest["manifests"] if media_type in INDEXES else [manifest["config"], *manifest.get("layers", [])]
    for child in children:
        yield str(child["digest"])
