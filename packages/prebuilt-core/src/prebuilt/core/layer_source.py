"""What one layer is made from, as a document: all that a build stage has to know in order to make its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.lock import LockedPackage, read_package
from prebuilt.core.plan import LayerKind, PlannedLayer
from prebuilt.core.platforms import Platform
from prebuilt.core.spec import PREFIX, BasePython, ImageSpec

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSource:
    """One layer to make. Its bytes follow from this alone, and it holds nothing else: a builder's cache may go by it.

    Attributes:
        key: Identity of the layer's content: 40 hex digits.
        kind: As in the plan.
        packages: In order; a later one wins where two own one file.
        python_version: Full version of the environment's interpreter, ``3.11.7``.
        site_packages: Where importable packages go, relative to the prefix.
        platform: What the environment runs on.
        bytecode: Whether ``.pyc`` files are made.
        base_python: The interpreter that a virtual environment leads to; None where there is none.
        prefix: Where the environment will be.
    """

    key: str
    kind: LayerKind
    packages: tuple[LockedPackage, ...]
    python_version: str
    site_packages: str
    platform: Platform
    bytecode: bool
    base_python: BasePython | None
    prefix: str = PREFIX

    @classmethod
    def of(cls, spec: ImageSpec, layer: PlannedLayer) -> LayerSource:
        """Return what `layer` of an image of `spec` is made from."""
        return cls(
            key=layer.key,
            kind=layer.kind,
            packages=layer.packages,
            python_version=spec.lock.python_version,
            site_packages=spec.lock.site_packages,
            platform=spec.base.platform,
            bytecode=spec.bytecode,
            base_python=spec.base.python if layer.kind == "interpreter" else None,
        )

    def to_bytes(self) -> bytes:
        """Return the document: the same layer, the same bytes. The inverse of :meth:`parse`."""
        base = self.base_python
        return canonical_json(
            {
                "format": _FORMAT,
                "key": self.key,
                "kind": self.kind,
                "packages": [asdict(package) for package in self.packages],
                "python_version": self.python_version,
                "site_packages": self.site_packages,
                "platform": str(self.platform),
                "bytecode": self.bytecode,
                "base_python": {"path": base.path, "version": base.version} if base else None,
                "prefix": self.prefix,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> LayerSource:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            InvalidValueError: It is damaged, or of another format.
        """
        try:
            raw: Mapping[str, Any] = json.loads(data)
            if raw["format"] != _FORMAT:
                raise InvalidValueError("a layer's source", raw["format"], reason=f"its format is not {_FORMAT}")
            return cls(
                key=raw["key"],
                kind=raw["kind"],
                packages=tuple(read_package(package) for package in raw["packages"]),
                python_version=raw["python_version"],
                site_packages=raw["site_packages"],
                platform=Platform.parse(raw["platform"]),
                bytecode=raw["bytecode"],
                base_python=BasePython(**raw["base_python"]) if raw["base_python"] else None,
                prefix=raw["prefix"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidValueError):
                raise
            raise InvalidValueError("a layer's source", data[:80], reason=f"{type(error).__name__} {error}") from error
