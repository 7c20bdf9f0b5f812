"""The image of a run: what its configuration says, and its layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from prebuilt.core.descriptor import Descriptor, check_digest
from prebuilt.core.errors import ContainerError, InvalidValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayer:
    """A layer as it is stored, and the digest of its uncompressed tar."""

    descriptor: Descriptor
    diff_id: str

    def __post_init__(self) -> None:
        """Check the digest."""
        check_digest(self.diff_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnableImage:
    """What a run needs to know of an image.

    Attributes:
        repository: What :func:`prebuilt.oci.open_repository` opens.
        config: Where the image's configuration is stored.
        layers: Bottom first.
        env: Variables that the image sets.
        workdir: Where commands start; ``/`` if the image does not say.
    """

    repository: str
    config: Descriptor
    layers: tuple[ImageLayer, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"

    def __post_init__(self) -> None:
        """Freeze the mapping."""
        object.__setattr__(self, "env", MappingProxyType(dict(self.env)))

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' uncompressed digests, bottom first."""
        return tuple(layer.diff_id for layer in self.layers)

    @classmethod
    def from_json(cls, repository: str, manifest: bytes, config: bytes) -> RunnableImage:
        """Read a manifest and the configuration that it names.

        Raises:
            ContainerError: They are not those of an image that can be run.
        """
        try:
            return _parse(repository, json.loads(manifest), json.loads(config))
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # InvalidValueError is a ValueError
            reason = (
                error.reason
                if isinstance(error, InvalidValueError)
                else f"its manifest or configuration has no valid {error}"
            )
            raise ContainerError(
                "read an image", at=repository, reason=reason, remedy="build the image again"
            ) from error


def _parse(repository: str, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> RunnableImage:
    layers = [Descriptor.from_json(layer) for layer in manifest["layers"]]
    diff_ids = config["rootfs"]["diff_ids"]
    if len(layers) != len(diff_ids):
        raise InvalidValueError(
            "an image", repository, reason=f"it has {len(layers)} layers and {len(diff_ids)} diff_ids"
        )
    settings = config.get("config") or {}
    pairs = (variable.partition("=") for variable in settings.get("Env") or ())
    return RunnableImage(
        repository=repository,
        config=Descriptor.from_json(manifest["config"]),
        layers=tuple(ImageLayer(descriptor=d, diff_id=i) for d, i in zip(layers, diff_ids, strict=True)),
        env={name: value for name, _, value in pairs},
        workdir=settings.get("WorkingDir") or "/",
    )
