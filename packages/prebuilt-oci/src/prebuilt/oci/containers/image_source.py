"""Where images of runs come from: repositories, with what is small and pinned kept on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import ContainerError, InvalidValueError
from prebuilt.core.platforms import Platform
from prebuilt.core.storage import read_if_there, write_atomically
from prebuilt.oci.containers.image import RunnableImage
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
            ContainerError: It is not there, not for this architecture, or not an image.
            RegistryError: The repository could not be asked.
        """
        pinned = parse_reference(reference)
        documents = _Documents(self, reference, pinned.repository)
        manifest = documents.manifest(str(pinned.digest))
        data = json.loads(manifest)
        if data.get("mediaType") in INDEXES or "manifests" in data:
            manifest = documents.manifest(_for_this_machine(reference, data["manifests"]))
            data = json.loads(manifest)
        try:
            config = Descriptor.from_json(data["config"])
        except (KeyError, TypeError, InvalidValueError) as error:
            raise ContainerError("read an image", at=reference, reason=f"its manifest has no valid {error}") from error
        return RunnableImage.from_json(pinned.repository, manifest, documents.blob(config))


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


def _for_this_machine(reference: str, manifests: list[dict[str, object]]) -> str:
    """Return the digest of the manifest for Linux on this processor (macOS runs Linux containers of its own architecture)."""
    wanted = Platform(os="linux", architecture=Platform.host().architecture)
    platforms = {str(m["digest"]): m.get("platform") for m in manifests}
    for digest, platform in platforms.items():
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == (
            wanted.os,
            wanted.architecture,
        ):
            return digest
    there = ", ".join(
        sorted({f"{p.get('os')}/{p.get('architecture')}" for p in platforms.values() if isinstance(p, dict)})
    )
    raise ContainerError(
        "read an image", at=reference, reason=f"it is for {there or 'no platform'}, this machine is {wanted}"
    )
