"""Images: configs, manifests and indexes as frozen values. What is read may be OCI's or Docker's; what is written is OCI's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor, check_digest
from prebuilt.core.errors import BaseImageError, InvalidValueError
from prebuilt.core.platforms import Platform
from prebuilt.oci.media_types import INDEXES, MANIFESTS, OCI_MANIFEST

_BASELINES = {"amd64": ("", "v1"), "arm64": ("", "v8")}
"""Variants that every processor of an architecture runs.

Source: https://github.com/opencontainers/image-spec/blob/main/image-index.md#platform-variants
"""


def parse_json_object(data: bytes, what: str) -> dict[str, Any]:
    """Return `data` as a JSON object; `what` names it in the error.

    Raises:
        InvalidValueError: It is not JSON, or not an object.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise InvalidValueError(what, data[:100], reason=f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidValueError(what, data[:100], reason="it is not a JSON object")
    return value


def descriptor_of(data: bytes, media_type: str) -> Descriptor:
    """Return the descriptor of `data`."""
    return Descriptor(media_type=media_type, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's config.

    Attributes:
        os: ``linux``.
        architecture: In Go's words: ``amd64``.
        variant: ``v8``; empty if there is none.
        diff_ids: Digests of the uncompressed layers, bottom to top.
        env: Environment variables, in their order.
        labels: Labels.
        data: The whole config, with the fields that have no name here. Not to be changed.

    Source: https://github.com/opencontainers/image-spec/blob/main/config.md
    """

    os: str
    architecture: str
    variant: str = ""
    diff_ids: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """Read a config of OCI or Docker.

        Raises:
            InvalidValueError: It is not one.
        """
        value = parse_json_object(data, "an image config")
        try:
            settings = value.get("config") or {}
            return cls(
                os=str(value["os"]),
                architecture=str(value["architecture"]),
                variant=str(value.get("variant") or ""),
                diff_ids=tuple(check_digest(digest) for digest in value["rootfs"]["diff_ids"]),
                env=MappingProxyType(_env(settings.get("Env") or ())),
                labels=MappingProxyType(dict(settings.get("Labels") or {})),
                data=MappingProxyType(value),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidValueError(
                "an image config", data[:200], reason=f"a field is missing or wrong: {error}"
            ) from error

    def to_bytes(self) -> bytes:
        """Return the canonical bytes of the whole config."""
        return canonical_json(dict(self.data))

    @property
    def platform_name(self) -> str:
        """``os/architecture`` and, if there is one, ``/variant``."""
        return _platform_name(self.os, self.architecture, self.variant)

    def runs_on(self, platform: Platform) -> bool:
        """Return whether every machine of `platform` can run the image."""
        return _runs_on(platform, self.os, self.architecture, self.variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest:
    """An image's manifest: config and layers, bottom to top.

    Source: https://github.com/opencontainers/image-spec/blob/main/manifest.md
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = OCI_MANIFEST

    def __post_init__(self) -> None:
        """Freeze the annotations."""
        object.__setattr__(self, "annotations", MappingProxyType(dict(self.annotations)))

    @classmethod
    def parse(cls, data: bytes) -> ImageManifest:
        """Read a manifest of OCI or Docker (schema 2).

        Raises:
            InvalidValueError: It is not one.
        """
        value = parse_json_object(data, "an image manifest")
        media_type = manifest_media_type(value)
        if media_type not in MANIFESTS:
            raise InvalidValueError("an image manifest", media_type, reason="it is an index of several")
        try:
            return cls(
                config=Descriptor.from_json(value["config"]),
                layers=tuple(Descriptor.from_json(layer) for layer in value["layers"]),
                annotations=value.get("annotations") or {},
                media_type=media_type,
            )
        except (KeyError, TypeError) as error:
            raise InvalidValueError(
                "an image manifest", data[:200], reason=f"a field is missing or wrong: {error}"
            ) from error

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        value = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        return canonical_json(value | ({"annotations": dict(self.annotations)} if self.annotations else {}))

    @property
    def descriptor(self) -> Descriptor:
        """Of :meth:`to_bytes`; that of bytes which somebody else wrote may differ."""
        return descriptor_of(self.to_bytes(), self.media_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One manifest of an index, and what it runs on; all three are empty where the index does not say."""

    descriptor: Descriptor
    os: str = ""
    architecture: str = ""
    variant: str = ""

    @property
    def platform_name(self) -> str:
        """``os/architecture`` and, if there is one, ``/variant``."""
        return _platform_name(self.os, self.architecture, self.variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIndex:
    """An index: the manifests of one image for several platforms, and whatever else is kept with them.

    Source: https://github.com/opencontainers/image-spec/blob/main/image-index.md
    """

    manifests: tuple[IndexEntry, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the annotations."""
        object.__setattr__(self, "annotations", MappingProxyType(dict(self.annotations)))

    @classmethod
    def parse(cls, data: bytes) -> ImageIndex:
        """Read an index of OCI or a manifest list of Docker.

        Raises:
            InvalidValueError: It is not one.
        """
        value = parse_json_object(data, "an image index")
        media_type = manifest_media_type(value)
        if media_type not in INDEXES:
            raise InvalidValueError("an image index", media_type, reason="it is the manifest of one image")
        try:
            return cls(
                manifests=tuple(_index_entry(entry) for entry in value["manifests"]),
                annotations=value.get("annotations") or {},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidValueError(
                "an image index", data[:200], reason=f"a field is missing or wrong: {error}"
            ) from error


def manifest_media_type(value: Mapping[str, Any]) -> str:
    """Return the media type of a manifest or index; OCI lets it be left out, and then the fields tell.

    Raises:
        InvalidValueError: It is none of those that are read here: Docker's schema 1, for one.
    """
    stated = value.get("mediaType")
    if stated is None and value.get("schemaVersion") == 2:  # noqa: PLR2004 - the only version there is
        stated = INDEXES[0] if "manifests" in value else OCI_MANIFEST
    if stated in INDEXES + MANIFESTS:
        return str(stated)
    what = stated or f"schema {value.get('schemaVersion')}"
    raise InvalidValueError(
        "a manifest", what, reason="it is neither OCI's nor Docker's schema 2", remedy="push the image anew"
    )


def select_manifest(index: ImageIndex, platform: Platform, *, at: str = "") -> Descriptor:
    """Return the manifest for `platform`: one that all its processors run, the plainest first.

    An index with one manifest and no word about its platform gives that one; its config tells.

    Args:
        index: Where to choose.
        platform: For what.
        at: The image's reference, for the error.

    Raises:
        BaseImageError: There is none; the message names the platforms that there are.
    """
    fitting = [entry for entry in index.manifests if _runs_on(platform, entry.os, entry.architecture, entry.variant)]
    if fitting:
        return min(fitting, key=lambda entry: entry.variant).descriptor
    if len(index.manifests) == 1 and not index.manifests[0].os:
        return index.manifests[0].descriptor
    there = sorted({entry.platform_name for entry in index.manifests if entry.os not in {"", "unknown"}})
    raise BaseImageError(
        f"find the image for {platform}",
        at=at,
        reason=f"it is for {', '.join(there)} only" if there else "its index names no platforms",
        remedy="use another image, or another platform",
    )


def _index_entry(value: Mapping[str, Any]) -> IndexEntry:
    platform = value.get("platform") or {}
    return IndexEntry(
        descriptor=Descriptor.from_json(value),
        os=str(platform.get("os") or ""),
        architecture=str(platform.get("architecture") or ""),
        variant=str(platform.get("variant") or ""),
    )


def _platform_name(os: str, architecture: str, variant: str) -> str:
    return "/".join(part for part in (os, architecture, variant) if part)


def _runs_on(platform: Platform, os: str, architecture: str, variant: str) -> bool:
    baselines = _BASELINES.get(architecture, ("",))
    return (os, architecture) == (platform.os, platform.architecture) and variant in baselines


def _env(variables: Any) -> dict[str, str]:  # noqa: ANN401 - as JSON has it
    pairs = (variable.partition("=") for variable in variables)
    return {name: value for name, _, value in pairs}
