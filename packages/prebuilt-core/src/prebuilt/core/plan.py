"""Which packages share which layer: derived from the spec alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prebuilt.core.canonical import content_id
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.lock import LockedPackage
from prebuilt.core.spec import IMAGE_FORMAT, PREFIX, ImageSpec

LARGE_BYTES = 3_000_000
"""A package file of this size has a layer of its own: smaller ones cost more in requests than they save in bytes."""

GROUP_BYTES = 3_500_000
"""A group of small packages is split in two above this size. Bytecode makes a layer up to 2.2 times its wheels, which stays
under 8 MB."""

MAX_LAYERS = 110
"""Base layers and ours. Runtimes stop at 127 (moby's and containerd's overlay depth); the rest is for those who build on top."""

_WANTED_LAYERS = 48  # each layer costs a request at pull time, and containerd unpacks them one after another

LayerKind = Literal["packages", "interpreter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLayer:
    """One layer to be.

    Attributes:
        key: Identity of its content: 40 hex digits. Equal keys mean equal bytes.
        name: For people: ``numpy``, ``runtime``, ``small-3 (14 packages)``.
        packages: What is in it; a later one wins where two own one file. Empty for ``interpreter``.
        kind: ``interpreter`` is the virtual environment that leads to the base's Python.
    """

    key: str
    name: str
    packages: tuple[LockedPackage, ...]
    kind: LayerKind = "packages"

    @property
    def size_bytes(self) -> int:
        """Bytes of its package files, as downloaded."""
        return sum(package.size_bytes for package in self.packages)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """The layers that an image adds to its base, bottom to top. The union of their packages is the lock's."""

    layers: tuple[PlannedLayer, ...]


def plan_layers(spec: ImageSpec) -> LayerPlan:
    """Return the layers for `spec`, bottom to top: interpreter, Python, runtime, then conda before wheels.

    Membership of a group follows from names and sizes alone. A package moves only if its group outgrows `GROUP_BYTES`.

    Raises:
        InvalidValueError: The base image has so many layers that no environment fits on top.
    """
    room = min(_WANTED_LAYERS, MAX_LAYERS - spec.base.layer_count)
    scale = 1
    while True:
        layers = _plan(spec, LARGE_BYTES * scale, GROUP_BYTES * scale)
        if len(layers) <= room:
            return LayerPlan(layers=layers)
        if scale > 1 << 20:
            raise InvalidValueError(
                "a base image",
                spec.base.reference,
                reason=f"it has {spec.base.layer_count} layers, and an image can have {MAX_LAYERS}",
                remedy="use a base image with fewer layers",
            )
        scale *= 2


def _plan(spec: ImageSpec, large_bytes: int, group_bytes: int) -> tuple[PlannedLayer, ...]:
    layers = [_interpreter_layer(spec)] if spec.lock.python_source == "base" else []
    packages = spec.lock.packages
    for role in ("python", "runtime"):
        for kind in ("conda", "wheel"):
            members = [package for package in packages if package.role == role and package.kind == kind]
            if members:
                layers.append(_layer(spec, f"{role}", members))
    for kind in ("conda", "wheel"):
        members = [package for package in packages if package.role == "user" and package.kind == kind]
        small = [package for package in members if package.size_bytes < large_bytes]
        for group, group_members in _groups(small, group_bytes):
            names = (
                group_members[0].name if len(group_members) == 1 else f"{len(group_members)} small packages ({group})"
            )
            layers.append(_layer(spec, names, group_members))
        layers.extend(_layer(spec, package.name, [package]) for package in members if package.size_bytes >= large_bytes)
    return tuple(layers)


def _groups(
    packages: Sequence[LockedPackage], limit_bytes: int, prefix: str = ""
) -> Iterable[tuple[str, list[LockedPackage]]]:
    """Split by further bits of the hashed name until a group is small enough (extendible hashing)."""
    if not packages:
        return
    if len(packages) == 1 or sum(package.size_bytes for package in packages) <= limit_bytes:
        yield prefix or "all", list(packages)
        return
    for bit in "01":
        half = [package for package in packages if _name_bits(package)[len(prefix)] == bit]
        yield from _groups(half, limit_bytes, prefix + bit)


def _name_bits(package: LockedPackage) -> str:
    return f"{int.from_bytes(hashlib.sha256(package.name.encode()).digest(), 'big'):0256b}"


def _layer(spec: ImageSpec, name: str, packages: Sequence[LockedPackage]) -> PlannedLayer:
    key = {
        "packages": [[package.kind, package.name, package.sha256] for package in packages],
        **_key_of_all(spec),
    }
    return PlannedLayer(key=content_id(key), name=name, packages=tuple(packages))


def _interpreter_layer(spec: ImageSpec) -> PlannedLayer:
    python = spec.base.python
    if python is None:
        raise InvalidValueError(
            "an image spec", spec.base.reference, reason="the lock wants the base's Python; it has none"
        )
    key = {"interpreter": [python.path, python.version], **_key_of_all(spec)}
    return PlannedLayer(key=content_id(key), name="interpreter", packages=(), kind="interpreter")


def _key_of_all(spec: ImageSpec) -> dict[str, object]:
    return {
        "format": IMAGE_FORMAT,
        "prefix": PREFIX,
        "python": spec.lock.python_xy,
        "site_packages": spec.lock.site_packages,
        "platform": str(spec.base.platform),
        "bytecode": spec.bytecode,
        "compression": spec.compression,
    }
