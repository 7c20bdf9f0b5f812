"""Putting layers on top of an image: a config and a manifest, the same bytes each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor, check_digest
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.spec import DEFAULT_PATH
from prebuilt.oci.image import ImageConfig, ImageManifest, descriptor_of
from prebuilt.oci.media_types import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)

EPOCH = "1970-01-01T00:00:00Z"

_OCI_LAYER_TYPES = {
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD,
    OCI_LAYER: OCI_LAYER,
    OCI_LAYER_GZIP: OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD: OCI_LAYER_ZSTD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedLayer:
    """A layer to put on top: its descriptor, the digest of its tar, and what the history shall say of it."""

    descriptor: Descriptor
    diff_id: str
    created_by: str

    def __post_init__(self) -> None:
        """Check the digest and the media type."""
        check_digest(self.diff_id)
        _oci_layer(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedImage:
    """What is to be pushed besides the layers: the config as a blob, then the manifest."""

    config: bytes
    manifest: bytes

    @property
    def config_descriptor(self) -> Descriptor:
        """Of the config."""
        return descriptor_of(self.config, OCI_CONFIG)

    @property
    def manifest_descriptor(self) -> Descriptor:
        """Of the manifest."""
        return descriptor_of(self.manifest, OCI_MANIFEST)


def extend_image(
    base_manifest: ImageManifest,
    base_config: ImageConfig,
    layers: Sequence[AddedLayer],
    *,
    env: Mapping[str, str],
    path_prepend: str | None = None,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> ExtendedImage:
    """Return config and manifest of the base image with `layers` on top, bottom to top. A pure function of its arguments.

    Kept of the base: user, working directory, variables, labels, fields that nothing here knows, and the time of its creation, so
    that the image is as old as its base on every machine (the epoch if the base has none). Its annotations are not: they
    speak of another image.

    The base's entry point goes, and with it the arguments (``Cmd``) that were meant for it. Tasks are started with a whole command,
    ``bash -c …``. Kubernetes puts that in place of an entry point, Batch behind it: without one both start the same.

    Args:
        base_manifest: Of OCI's types or Docker's; in the result they are OCI's, which zstd needs.
        base_config: What `base_manifest` names.
        layers: May be empty.
        env: Variables that are added to the base's or replace them; PATH is not among them.
        path_prepend: A folder put in front of the base's PATH, or of the runtimes' default.
        labels: Labels that are added to the base's or replace them.
        annotations: Those of the manifest.

    Raises:
        InvalidValueError: The base has layers of a kind that cannot be mapped, or its config has another number of layers.
    """
    if len(base_manifest.layers) != len(base_config.diff_ids):
        counts = f"{len(base_manifest.layers)} layers, and its config {len(base_config.diff_ids)}"
        raise InvalidValueError("a base image", base_manifest.config.digest, reason=f"its manifest has {counts}")
    config = dict(base_config.data) | {
        "config": _settings(base_config, env, path_prepend, labels),
        "created": _created(base_config),
        "history": [*_base_history(base_config), *(_history(base_config, layer.created_by) for layer in layers)],
        "rootfs": {"type": "layers", "diff_ids": [*base_config.diff_ids, *(layer.diff_id for layer in layers)]},
    }
    config_bytes = canonical_json(config)
    manifest = ImageManifest(
        config=descriptor_of(config_bytes, OCI_CONFIG),
        layers=tuple(_oci_layer(layer) for layer in (*base_manifest.layers, *(layer.descriptor for layer in layers))),
        annotations=annotations,
    )
    return ExtendedImage(config=config_bytes, manifest=manifest.to_bytes())


def _settings(
    base: ImageConfig, env: Mapping[str, str], path_prepend: str | None, labels: Mapping[str, str]
) -> dict[str, Any]:
    settings = dict(base.data.get("config") or {})
    variables = dict(base.env) | dict(sorted(env.items()))
    if path_prepend is not None:
        variables["PATH"] = f"{path_prepend}:{base.env.get('PATH') or DEFAULT_PATH}"
    settings["Env"] = [f"{name}={value}" for name, value in variables.items()]
    if base.labels or labels:
        settings["Labels"] = dict(base.labels) | dict(labels)
    if settings.pop("Entrypoint", None):
        settings.pop("Cmd", None)
    return settings


def _created(base: ImageConfig) -> str:
    return str(base.data.get("created") or EPOCH)


def _history(base: ImageConfig, created_by: str) -> dict[str, Any]:
    return {"created": _created(base), "created_by": created_by}


def _base_history(base: ImageConfig) -> list[dict[str, Any]]:
    """Return the base's history, or a plain one if it does not tell of each layer: tools pair the two by counting."""
    history = [dict(entry) for entry in base.data.get("history") or ()]
    if sum(not entry.get("empty_layer") for entry in history) == len(base.diff_ids):
        return history
    return [_history(base, "a layer of the base image") for _ in base.diff_ids]


def _oci_layer(descriptor: Descriptor) -> Descriptor:
    media_type = _OCI_LAYER_TYPES.get(descriptor.media_type)
    if media_type is None:
        raise InvalidValueError(
            "the media type of a layer",
            descriptor.media_type,
            reason="it is neither a plain, gzip or zstd layer of OCI nor one of Docker",
            remedy="use a base image without foreign or encrypted layers",
        )
    return replace(descriptor, media_type=media_type)
