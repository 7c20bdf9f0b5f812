"""Image layouts: a repository in a folder, which skopeo, umoci and others read and write too.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import DigestMismatchError, InvalidValueError, RegistryError, StorageError
from prebuilt.core.storage import read_if_there, storage_errors, write_atomically
from prebuilt.oci.blob_folder import BlobFolder
from prebuilt.oci.growing_blob import GrowingBlob
from prebuilt.oci.image import ImageManifest, descriptor_of, manifest_media_type, parse_json_object
from prebuilt.oci.layout_index import LayoutIndex
from prebuilt.oci.media_types import INDEXES, MANIFESTS
from prebuilt.oci.reference import LAYOUT_PREFIX, check_tag, is_layout, layout_folder
from prebuilt.oci.repository import Advance, Manifest

_log = logging.getLogger(__name__)

_VERSION = "1.0.0"
_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_LOCK_NAME = ".prebuilt.lock"
_MAX_MANIFEST_BYTES = 4 << 20
"""Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests"""


class LayoutRepository:
    """The repository in an image layout. Threads and processes may read and write it at once.

    Blobs and ``index.json`` appear by rename, so whoever is killed leaves a layout that can be read. They are on the disk before they
    have their names, and blobs before the index names them, so that power may fail too. A blob that is lost all the same is noticed by
    its size or digest, and written anew by the next push.

    The folder is made by the first write; until then nothing is there.
    """

    def __init__(self, folder: Path) -> None:
        """Use the layout in `folder`, an absolute path."""
        self._name = f"{LAYOUT_PREFIX}{folder}"
        self._folder = layout_folder(self._name)
        self._blobs = BlobFolder(self._folder / "blobs")
        self._is_ready = False

    @property
    def name(self) -> str:
        """``oci:`` and the folder."""
        return self._name

    def resolve(self, reference: str) -> Descriptor | None:
        """Return the manifest's descriptor if the image is there as a whole; one that lost a blob is to be pushed again."""
        try:
            manifest = self.get_manifest(reference)
        except DigestMismatchError as error:
            _log.warning("an image counts as absent: %s", error)
            return None
        if manifest is None:
            return None
        missing = self._missing(manifest)
        if missing:
            _log.warning("%s of %s counts as absent: %s is not there", reference, self.name, missing[0].digest)
            return None
        return manifest.descriptor

    def get_manifest(self, reference: str) -> Manifest | None:
        """Return the manifest or index, checked against its digest."""
        descriptor = self._read_index().find(reference)
        if descriptor is None and ":" in reference:
            descriptor = self._unlisted(reference)
        if descriptor is None or self._blobs.size(descriptor.digest) is None:
            return None
        with self._blobs.open(descriptor) as chunks:
            return Manifest(descriptor=descriptor, data=b"".join(chunks))

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> Descriptor:
        """Store a manifest under a tag or its digest.

        Raises:
            RegistryError: A blob of it is not there.
            DigestMismatchError: `reference` is another digest.
            StorageError: The disk is full or the folder not writable.
        """
        descriptor = descriptor_of(data, media_type)
        tag = None if ":" in reference else check_tag(reference)
        if tag is None and reference != descriptor.digest:
            raise DigestMismatchError("store a manifest", at=self.name, expected=reference, actual=descriptor.digest)
        self._ensure()
        self._check_blobs(Manifest(descriptor=descriptor, data=data))
        self._blobs.put(descriptor, lambda: io.BytesIO(data))
        with self._locked():
            index = self._read_index().with_manifest(descriptor, tag)
            write_atomically(self._folder / "index.json", index.to_bytes(), is_durable=True)
        return descriptor

    def has_blob(self, digest: str) -> bool:
        """Return whether there is a file for the blob."""
        return self._blobs.size(digest) is not None

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Give the blob as chunks of at most 1 MiB; see :meth:`BlobFolder.open`."""
        return self._blobs.open(descriptor)

    def push_blob(
        self, descriptor: Descriptor, source: Callable[[], BinaryIO], advance: Advance = lambda _: None
    ) -> None:
        """Store a blob unless it is there undamaged."""
        self._ensure()
        self._blobs.put(descriptor, source, advance)

    def push_growing_blob(self, blob: GrowingBlob, check: Callable[[], None] = lambda: None) -> None:
        """Store a blob once it is whole: it is on this machine already."""
        self.push_blob(blob.wait_for_all(), blob.open, lambda _: check())

    def mount_blob(self, descriptor: Descriptor, source: str) -> bool:
        """Take a blob from another layout on this machine, by hard link if that can be."""
        if not is_layout(source):
            return self._blobs.has(descriptor)
        self._ensure()
        return self._blobs.link(descriptor, BlobFolder(layout_folder(source) / "blobs"))

    def tags(self) -> dict[str, Descriptor]:
        """Return all tags and what they name."""
        return self._read_index().tags()

    def _unlisted(self, digest: str) -> Descriptor | None:
        """Return the descriptor of a manifest that no tag names: one of an index, or one whose tag moved on."""
        size = self._blobs.size(digest)
        if size is None or size > _MAX_MANIFEST_BYTES:
            return None
        unknown = Descriptor(media_type="", digest=digest, size=size)
        with self._blobs.open(unknown) as chunks:
            data = b"".join(chunks)
        try:
            media_type = manifest_media_type(parse_json_object(data, "a manifest"))
        except InvalidValueError:  # a config, a layer
            return None
        return Descriptor(media_type=media_type, digest=digest, size=size)

    def _missing(self, manifest: Manifest) -> list[Descriptor]:
        """Return the blobs of an image that are not there, or not of their size. An index may lack any of its manifests."""
        if manifest.descriptor.media_type not in MANIFESTS:
            return []
        image = ImageManifest.parse(manifest.data)
        return [blob for blob in (image.config, *image.layers) if not self._blobs.has(blob)]

    def _check_blobs(self, manifest: Manifest) -> None:
        if manifest.descriptor.media_type not in MANIFESTS + INDEXES:
            raise InvalidValueError(
                "a manifest", manifest.descriptor.media_type, reason="it is neither an image nor an index"
            )
        missing = self._missing(manifest)
        for blob in missing:
            self._blobs.discard(blob.digest)  # of the wrong size: as long as it is there nobody would push it again
        if missing:
            raise RegistryError(
                "store a manifest",
                at=self.name,
                reason=f"blob {missing[0].digest} is not there, or was damaged",
                remedy="deploy again: what is missing is made anew",
                code="MANIFEST_BLOB_UNKNOWN",
            )

    def _read_index(self) -> LayoutIndex:
        layout = read_if_there(self._folder / "oci-layout")
        data = read_if_there(self._folder / "index.json")
        if layout is None or data is None:
            return LayoutIndex.empty()
        try:
            _check_version(layout)
            return LayoutIndex.parse(data)
        except InvalidValueError as error:
            raise StorageError(
                "read an image layout",
                at=str(self._folder),
                reason=str(error),
                remedy="move the folder away; a new one is made by the next deploy",
            ) from error

    def _ensure(self) -> None:
        """Make the layout if it is not there."""
        if self._is_ready:
            return
        marker = self._folder / "oci-layout"
        with storage_errors("make an image layout", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if read_if_there(marker) is None:
                self._refuse_foreign_folder()
                write_atomically(marker, _LAYOUT_FILE, is_durable=True)
            if read_if_there(self._folder / "index.json") is None:
                write_atomically(self._folder / "index.json", LayoutIndex.empty().to_bytes(), is_durable=True)
        self._blobs.sweep()
        self._is_ready = True

    def _refuse_foreign_folder(self) -> None:
        visible = sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
        if visible:
            raise StorageError(
                "make an image layout",
                at=str(self._folder),
                reason=f"the folder holds other things, {visible[0]} for one",
                remedy="choose a folder that is empty or not there",
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers of the index out: `flock` excludes processes, and threads since each opens the file anew."""
        with storage_errors("lock an image layout", self._folder):
            handle = os.open(self._folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with storage_errors("lock an image layout", self._folder):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)  # which unlocks


def _check_version(layout: bytes) -> None:
    version = parse_json_object(layout, "the version of an image layout").get("imageLayoutVersion")
    if version != _VERSION:
        raise InvalidValueError("the version of an image layout", version, reason=f"only {_VERSION} is known here")
