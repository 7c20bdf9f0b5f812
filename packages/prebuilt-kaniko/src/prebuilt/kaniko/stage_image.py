"""The image that a build stage is made of, by the digest that it has for the platform of the nodes."""

from __future__ import annotations

from prebuilt.core.errors import BaseImageError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.kaniko.config import BUILD_PLATFORM_SETTING
from prebuilt.oci.image import ImageConfig, ImageIndex, ImageManifest, select_manifest
from prebuilt.oci.media_types import INDEXES
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import parse_reference
from prebuilt.oci.repository import Manifest, Repository


def pinned(image: str, platform: Platform, settings: Settings) -> str:
    """Return `image` by the digest that it has for `platform`: Kaniko would take the one for the platform of what it builds.

    Raises:
        BaseImageError: It is not there, or not for `platform`.
        RegistryError: It could not be asked for.
    """
    reference = parse_reference(image)
    repository = open_repository(reference.repository, settings=settings)
    manifest = repository.get_manifest(reference.identifier)
    try:
        return f"{reference.repository}@{_digest(repository, manifest, platform)}"
    except BaseImageError as error:
        raise BaseImageError(
            f"find the image of the build stage for {platform}",
            at=image,
            reason=error.reason,
            remedy=f"set METAFLOW_PREBUILT_BUILD_IMAGE to an image for {platform}, or unset {BUILD_PLATFORM_SETTING}",
        ) from error


def _digest(repository: Repository, manifest: Manifest | None, platform: Platform) -> str:
    if manifest is None:
        raise BaseImageError("find an image", reason="it is not there")
    if manifest.descriptor.media_type in INDEXES:
        return select_manifest(ImageIndex.parse(manifest.data), platform).digest
    with repository.open_blob(ImageManifest.parse(manifest.data).config) as chunks:
        config = ImageConfig.parse(b"".join(chunks))
    if not config.runs_on(platform):
        raise BaseImageError("find an image", reason=f"it is for {config.platform_name} only")
    return manifest.descriptor.digest
