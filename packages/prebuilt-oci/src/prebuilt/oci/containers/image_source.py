"""Where images of runs come from: repositories, with what is small and pinned kept on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import ContainerError
from prebuilt.core.platforms import Platform
from prebuilt.core.storage import read_if_there, write_atomically
from prebuilt.oci.containers.image import RunnableImage
from prebuilt.oci.image import (
    ImageConfig,
    ImageIndex,
    ImageManifest,
    manifest_media_type,
    parse_json_object,
    select_manifest,
)
from prebuilt.oci.media_types import INDEXES
from prebuilt.oci.reference import parse_reference

if TYPE_CHECKING:
    from prebuilt.oci.repository import Repository


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Reads images by pinned reference.

    Attributes:
        folder: Manifests and configurations that were read before, by digest: an image that ran once runs without asking its registry.
        open: Opens a repository by its name.
    """

    folder: Path
    open: Callable[[str], Repository]

    def get(self, reference: str) -> RunnableImage:
        """Return the image for this machine's architecture.

        Raises:
            ContainerError: It is not there, or not for this architecture.
            BaseImageError: It is an index without a manifest for this architecture.
            InvalidValueError: It is not an image.
            RegistryError: The repository could not be asked.
        """
        pinned = parse_reference(reference)
        documents = _Documents(self, reference, pinned.repository)
        platform = Platform(
            os="linux", architecture=Platform.host().architecture
        )  # macOS runs Linux of its own architecture
        data = documents.manifest(str(pinned.digest))
        if manifest_media_type(parse_json_object(data, "a manifest")) in INDEXES:
            data = documents.manifest(select_manifest(ImageIndex.parse(data), platform, at=reference).digest)
        manifest = ImageManifest.parse(data)
        config = ImageConfig.parse(documents.blob(manifest.config))
        if not config.runs_on(platform):
            raise ContainerError(
                "run an image", at=reference, reason=f"it is for {config.platform_name}, this machine is {platform}"
            )
        return RunnableImage.of(pinned.repository, manifest, config)

    def config(self, image: RunnableImage) -> bytes:
        """Return the configuration of an image that was read from here."""
        return _Documents(self, image.repository, image.repository).blob(image.config)


@dataclass(frozen=True, slots=True)
class _Documents:
    """Manifests and configurations of one repository, the kept ones first."""

    source: ImageSource
    reference: str
    repository: str

    def manifest(self, digest: str) -> bytes:
        def read() -> bytes:
            found = self.source.open(self.repository).get_manifest(digest)
            if found is None:
                raise ContainerError(
                    "read an image", at=self.reference, reason=f"{digest} is not there", remedy="deploy again"
                )
            return found.data

        return self._kept(digest, read)

    def blob(self, descriptor: Descriptor) -> bytes:
        def read() -> bytes:
            with self.source.open(self.repository).open_blob(descriptor) as chunks:
                return b"".join(chunks)

        return self._kept(descriptor.digest, read)

    def _kept(self, digest: str, read: Callable[[], bytes]) -> bytes:
        path = self.source.folder / digest.removeprefix("sha256:")
        data = read_if_there(path)
        if data is None or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            data = read()
            write_atomically(path, data)
        return data
