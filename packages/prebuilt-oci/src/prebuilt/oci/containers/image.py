"""The image of a run: what its configuration says, and its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from prebuilt.core.descriptor import Descriptor, check_digest
from prebuilt.core.errors import InvalidValueError
from prebuilt.oci.image import ImageConfig, ImageManifest


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
        repository: What :func:`prebuilt.oci.open.open_repository` opens.
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
    def of(cls, repository: str, manifest: ImageManifest, config: ImageConfig) -> RunnableImage:
        """Join what manifest and configuration say.

        Raises:
            InvalidValueError: They do not agree.
        """
        if len(manifest.layers) != len(config.diff_ids):
            counts = f"{len(manifest.layers)} layers and {len(config.diff_ids)} diff_ids"
            raise InvalidValueError("an image", repository, reason=f"it has {counts}")
        pairs = zip(manifest.layers, config.diff_ids, strict=True)
        return cls(
            repository=repository,
            config=manifest.config,
            layers=tuple(ImageLayer(descriptor=layer, diff_id=diff_id) for layer, diff_id in pairs),
            env=config.env,
            workdir=str((config.data.get("config") or {}).get("WorkingDir") or "/"),
        )
