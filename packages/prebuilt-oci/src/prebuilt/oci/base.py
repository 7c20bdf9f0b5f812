"""Base images: what a reference names now, and what tasks need to know of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prebuilt.core.bake import BaseImages
from prebuilt.core.descriptor import check_digest
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import BaseImageError, DigestMismatchError, InvalidValueError, RegistryError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BaseImage
from prebuilt.oci.amazon import ecr_region
from prebuilt.oci.base_facts import BaseFacts
from prebuilt.oci.image import ImageConfig, ImageIndex, ImageManifest, select_manifest
from prebuilt.oci.media_types import INDEXES
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import Reference, parse_reference
from prebuilt.oci.repository import Manifest, Repository

_log = logging.getLogger(__name__)

BASE_IMAGE_SETTING = "METAFLOW_PREBUILT_BASE_IMAGE"

_GLIBC_REMEDY = f"set {BASE_IMAGE_SETTING} to an image with the GNU C library: python:3.X-slim, for one"
_ID_LENGTH = 40


@dataclass(frozen=True, slots=True)
class BaseImageLookup:
    """Looks base images up in registries and image layouts. Concurrent calls are fine.

    What a tag names is asked anew each time, in one HEAD. What is known of a digest never changes: it is read off the layers
    once and kept beside the images for everybody (`documents`), and in `cache` for this machine.

    Attributes:
        settings: How registries are reached.
        documents: Where facts are kept for everybody; None where that cannot be.
        cache: Where they are kept for this machine.
        note: Told when an image has to be read, which may take a while.
    """

    settings: Settings
    documents: DocumentStore | None
    cache: DocumentStore
    note: Callable[[str], None] = _log.info

    def get(self, reference: str, platform: Platform, *, check: Callable[[], None] = lambda: None) -> BaseImage:
        """Return what `reference` (``python:3.11-slim``, ``oci:/folder:tag``) is now, pinned to its digest for `platform`.

        `check` is called while layers are read, and while a registry is waited for; it raises to stop.

        Raises:
            BaseImageError: It is not there, not for `platform`, or has no glibc, no bash or no tar; or `reference` is not one.
            RegistryError: It could not be asked for.
            InvalidValueError: What is there is not an image.
        """
        parsed = _parsed(reference)
        with _setting_named():
            repository = open_repository(parsed.repository, settings=self.settings, check=check)
            digest, index_digest = self._pin(repository, parsed, platform)
            facts = self._facts(repository, reference, digest, platform, check)
        _check(facts, reference, platform)
        return BaseImage(
            reference=reference,
            repository=parsed.repository,
            digest=digest,
            platform=platform,
            layer_count=facts.layer_count,
            glibc=facts.glibc,
            python=facts.python,
            index_digest=index_digest,
        )

    def _pin(self, repository: Repository, reference: Reference, platform: Platform) -> tuple[str, str | None]:
        """Return the digest of the manifest for `platform`, and that of the index it was found in, if there was one.

        What an index holds is kept: it never changes.
        """
        digest = reference.digest
        if digest is None:
            found = repository.resolve(reference.identifier)
            if found is None:
                raise _absent(reference)
            if found.media_type not in INDEXES:
                return found.digest, None
            digest = found.digest
        name = f"base-manifest-v1-{_short(digest)}-{platform.subdir}"
        kept = self.cache.get(name)
        if kept is not None:
            try:
                return _found(digest, check_digest(kept.decode(errors="replace")))
            except InvalidValueError as error:
                _log.warning("a kept digest is not used: %s", error)
        manifest = repository.get_manifest(digest)
        if manifest is None:
            raise _absent(reference)
        pinned = _select(manifest, platform, reference)
        self.cache.put(name, pinned.encode())
        return _found(digest, pinned)

    def _facts(
        self, repository: Repository, reference: str, digest: str, platform: Platform, check: Callable[[], None]
    ) -> BaseFacts:
        """Return what is kept of a manifest, or else read its layers, and keep it."""
        name = f"base-facts-v1-{_short(digest)}"
        for store in (self.cache, self.documents):
            if store is None:
                continue
            try:
                kept = store.get(name)
                if kept is None:
                    continue
                facts = BaseFacts.parse(kept)
            except (DigestMismatchError, InvalidValueError) as error:
                _log.warning("kept facts are not used: %s", error)
                continue
            if store is not self.cache:
                self.cache.put(name, kept)
            return facts
        manifest, config = self._image(repository, reference, digest)
        if not config.runs_on(platform):
            raise _wrong_platform(config.platform_name, reference, platform)
        size_mb = sum(layer.size for layer in manifest.layers) / 1e6
        self.note(f"prebuilt: reading the base image {reference} once ({size_mb:.0f} MB)")
        from prebuilt.oci.base_scan import read_facts  # what unpacks layers takes long to import

        facts = read_facts(repository, manifest, config, check)
        for store in (self.documents, self.cache):
            if store is not None:
                store.put(name, facts.to_bytes())
        return facts

    @staticmethod
    def _image(repository: Repository, reference: str, digest: str) -> tuple[ImageManifest, ImageConfig]:
        found = repository.get_manifest(digest)
        if found is None:
            raise _absent(parse_reference(reference).with_digest(digest))
        manifest = ImageManifest.parse(found.data)
        with repository.open_blob(manifest.config) as chunks:
            return manifest, ImageConfig.parse(b"".join(chunks))


def _parsed(reference: str) -> Reference:
    try:
        return parse_reference(reference)
    except InvalidValueError as error:
        raise BaseImageError(
            "find the base image",
            at=reference,
            reason=f"this is no image reference: {error.reason}",
            remedy=f"mend the name that {BASE_IMAGE_SETTING} or the step's decorator gives",
        ) from error


def _found(digest: str, pinned: str) -> tuple[str, str | None]:
    """Return the digest of a manifest, and `digest` if that is an index's."""
    return pinned, None if pinned == digest else digest


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_ID_LENGTH]


def _select(manifest: Manifest, platform: Platform, reference: Reference) -> str:
    """Return the digest for `platform`; a manifest that is no index is its own, and its config tells later what it runs on."""
    if manifest.descriptor.media_type not in INDEXES:
        return manifest.descriptor.digest
    try:
        return select_manifest(ImageIndex.parse(manifest.data), platform, at=str(reference)).digest
    except BaseImageError as error:
        raise BaseImageError(
            error.tried,
            at=error.at,
            reason=error.reason,
            remedy=f"set {BASE_IMAGE_SETTING} to an image for {platform}",
        ) from error


def _check(facts: BaseFacts, reference: str, platform: Platform) -> None:
    """Refuse an image in which no task could run."""
    tried = f"use the base image for {platform}"
    if facts.platform != str(platform):
        raise _wrong_platform(facts.platform, reference, platform)
    if facts.glibc is None:
        has = "it has musl, not the GNU C library" if facts.has_musl else "it has no GNU C library"
        raise BaseImageError(tried, at=reference, reason=f"{has}, which packages need", remedy=_GLIBC_REMEDY)
    missing = [name for name in ("bash", "tar") if name not in facts.commands]
    if missing:
        raise BaseImageError(
            tried,
            at=reference,
            reason=f"it has no {' and no '.join(missing)}, with which Metaflow starts a task",
            remedy=f"install {' and '.join(missing)} in it, or set {BASE_IMAGE_SETTING} to another image",
        )


def _wrong_platform(there: str, reference: str, platform: Platform) -> BaseImageError:
    return BaseImageError(
        f"use the base image for {platform}",
        at=reference,
        reason=f"it is for {there} only",
        remedy=f"set {BASE_IMAGE_SETTING} to an image for {platform}",
    )


def _absent(reference: Reference) -> BaseImageError:
    region = ecr_region(reference.repository.partition("/")[0])  # of a layout it is no host
    return BaseImageError(
        "find the base image",
        at=str(reference),
        reason="it is not there" + (f", in {region}: a region has images of its own" if region else ""),
        remedy=f"check its name, or set {BASE_IMAGE_SETTING} to an image that is there",
    )


@contextmanager
def _setting_named() -> Iterator[None]:
    """Have every failure of a registry name the setting that chooses another base image."""
    try:
        yield
    except RegistryError as error:
        if BASE_IMAGE_SETTING in error.remedy:
            raise
        own = f"{error.remedy}; or " if error.remedy else ""
        raise type(error)(
            error.tried,
            at=error.at,
            reason=error.reason,
            remedy=f"{own}set {BASE_IMAGE_SETTING} to a base image that can be had",
            status=error.status,
            code=error.code,
        ) from error


_: type[BaseImages] = BaseImageLookup
