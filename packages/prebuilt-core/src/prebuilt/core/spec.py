"""What is to be built: a lock on a base image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from prebuilt.core.canonical import content_id
from prebuilt.core.descriptor import check_digest
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.lock import Lock
from prebuilt.core.platforms import Platform

PREFIX = "/opt/prebuilt/env"
"""Where every image has its environment. Constant, so that a package's layer is the same bytes in all of them."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What runtimes take where an image sets no PATH.

Source: https://github.com/moby/moby/blob/master/oci/defaults.go and containerd's oci/spec.go
"""

IMAGE_FORMAT = 1
"""Raised when the same lock must give other bytes; part of every identity."""

Compression = Literal["zstd", "gzip"]


class EnvId(NamedTuple):
    """What registries build a tag from. Identities are 40 hex digits; `arch` is conda's subdir, ``linux-64``."""

    req_id: str
    full_id: str
    arch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePython:
    """An interpreter in a base image: its absolute path and full version, ``3.11.7``."""

    path: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """A base image as it was found in its registry.

    Attributes:
        reference: As the user wrote it: ``python:3.11-slim``.
        repository: Where it is, without tag or digest, in the form that :func:`prebuilt.oci.open.open_repository` opens.
        digest: Of its manifest for `platform`.
        platform: That of the manifest.
        layer_count: Layers it has.
        glibc: Version of its C library, ``2.36``.
        python: Its interpreter that is called ``python3``; None if there is none.
        index_digest: Of the index that lists it beside other platforms' manifests; None if it was found without one. No part
            of what the base is, so no part of any identity.
    """

    reference: str
    repository: str
    digest: str
    platform: Platform
    layer_count: int
    glibc: str | None
    python: BasePython | None
    index_digest: str | None = None

    def __post_init__(self) -> None:
        """Check the digests."""
        check_digest(self.digest)
        if self.index_digest is not None:
            check_digest(self.index_digest)


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Everything that decides an image's bytes.

    Attributes:
        lock: What is installed.
        base: What it is installed on.
        bytecode: Whether ``.pyc`` files are made.
        compression: Of the layers that are added.
        env: Environment variables that the image adds to its base's, without PATH.
        labels: Labels that the image adds to its base's, beside those of its identity.
        variant: What a builder says of itself where its images differ from others of the same spec; usually empty.
    """

    lock: Lock
    base: BaseImage
    bytecode: bool = True
    compression: Compression = "zstd"
    env: Mapping[str, str] = field(default_factory=lambda: {"METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1"})
    labels: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""

    def __post_init__(self) -> None:
        """Check that lock and base go together, and the compression; freeze the mappings."""
        if self.compression not in get_args(Compression):
            expected = " or ".join(get_args(Compression))
            raise InvalidValueError("a compression of layers", self.compression, reason=f"expected {expected}")
        if self.lock.target.platform != self.base.platform:
            raise InvalidValueError(
                "an image's base",
                self.base.reference,
                reason=f"it is for {self.base.platform}, and the lock for {self.lock.target.platform}",
            )
        if self.lock.python_source == "base" and not self._has_locked_python:
            there = f"Python {self.base.python.version}" if self.base.python else "no Python"
            raise InvalidValueError(
                "an image's base",
                self.base.reference,
                reason=f"it has {there}, and the lock takes Python {self.lock.python_xy} from it",
            )
        for name in ("env", "labels"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def _has_locked_python(self) -> bool:
        """Whether the base has an interpreter of the lock's X.Y: patch releases of it take each other's packages."""
        return self.base.python is not None and f"{self.base.python.version}.".startswith(f"{self.lock.python_xy}.")

    def to_json(self) -> dict[str, Any]:
        """Return what decides the image's bytes; a lock is named by its content, a base by its digest."""
        return {
            "format": IMAGE_FORMAT,
            "lock": self.lock.content_id,
            "base": self.base.digest,
            "platform": str(self.base.platform),
            "bytecode": self.bytecode,
            "compression": self.compression,
            "env": dict(self.env),
            "labels": dict(self.labels),
            "variant": self.variant,
        }

    @cached_property
    def full_id(self) -> str:
        """Identity: 40 hex digits."""
        return content_id(self.to_json())

    @property
    def identity_labels(self) -> dict[str, str]:
        """Labels, and annotations, that name what the image is."""
        return {
            "metaflow-prebuilt.requirements": self.lock.req_id,
            "metaflow-prebuilt.lock": self.lock.content_id,
            "metaflow-prebuilt.image": self.full_id,
            "metaflow-prebuilt.format": str(IMAGE_FORMAT),
        }

    @property
    def all_labels(self) -> dict[str, str]:
        """Every label that the image adds to its base's."""
        return {**self.identity_labels, **self.labels}

    @property
    def annotations(self) -> dict[str, str]:
        """Annotations of the image's manifest: what the image is, and what it was built on."""
        return {**self.identity_labels, "org.opencontainers.image.base.digest": self.base.digest}

    @property
    def cache_key(self) -> str:
        """What a builder's cache of layers is found by: 12 hex digits that stay while the versions of packages change."""
        names = sorted({package.name for package in self.lock.packages if package.role == "user"})
        text = "\n".join((str(self.base.platform), self.base.repository, *names))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def env_id(self) -> EnvId:
        """What registries build a tag from."""
        return EnvId(self.lock.req_id, self.full_id, self.base.platform.subdir)
