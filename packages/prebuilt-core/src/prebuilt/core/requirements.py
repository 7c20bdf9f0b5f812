"""What one step asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from prebuilt.core.canonical import content_id
from prebuilt.core.errors import InvalidValueError, without_credentials
from prebuilt.core.platforms import Platform

if TYPE_CHECKING:
    from prebuilt.core.spec import BaseImage

PythonSource = Literal["base", "conda"]
"""Where an environment's interpreter comes from: the base image (or host), or a conda package."""

_PYTHON = re.compile(r"3\.\d+(\.\d+)?")
_VERSION = re.compile(r"\d+(\.\d+)*")
_REQUIREMENTS_FORMAT = 1  # part of every req_id: raise it when the same requirements must be resolved anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an environment will run on; this decides, not the machine that resolves.

    Attributes:
        platform: Operating system and architecture.
        glibc: Version of the C library, ``2.36``; None on macOS.
        cuda: Highest CUDA version that the driver is assumed to support (conda's ``__cuda``); None without a GPU.
        base_python: Full version of the interpreter that is already there, ``3.11.7``; None if there is none.
    """

    platform: Platform
    glibc: str | None = None
    cuda: str | None = None
    base_python: str | None = None

    def __post_init__(self) -> None:
        """Check the versions."""
        for what, value in (("a glibc version", self.glibc), ("a CUDA version", self.cuda)):
            if value is not None and not _VERSION.fullmatch(value):
                raise InvalidValueError(what, value, reason="expected numbers and dots")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form; the inverse of :meth:`from_json`."""
        return {
            "platform": str(self.platform),
            "glibc": self.glibc,
            "cuda": self.cuda,
            "base_python": self.base_python,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**data, "platform": Platform.parse(data["platform"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What one step asked for, and what it will run on.

    Attributes:
        python: ``3.11`` (any patch release) or ``3.11.7`(that one).
        target: What the environment will run on.
        conda: Conda package name (may be ``channel::name``) to version spec; an empty spec takes any version.
        pypi: PyPI name (may carry extras, ``name[extra]``) to version spec (``1.2`` means ``==1.2``), or to a direct URL or
            local path written as ``@ URL``.
        local: What those of `pypi` hold that are files or folders of this machine: name as in `pypi` to SHA-256. A path stays
            while the bytes change, and is another's path too.
        runtime: What Metaflow itself needs for the datastore in use, name to version spec. From conda if the
            interpreter is, else from PyPI.
        channels: Conda channels, highest priority first.
    """

    python: str
    target: Target
    conda: Mapping[str, str] = field(default_factory=dict)
    pypi: Mapping[str, str] = field(default_factory=dict)
    local: Mapping[str, str] = field(default_factory=dict)
    runtime: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ("conda-forge",)

    def __post_init__(self) -> None:
        """Check the Python version, strip credentials from channels, freeze the mappings."""
        if not _PYTHON.fullmatch(self.python):
            raise InvalidValueError(
                "a Python version", self.python, reason="expected 3.X or 3.X.Y", remedy="give python='3.11', say"
            )
        for name in ("conda", "pypi", "local", "runtime"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        object.__setattr__(self, "channels", tuple(without_credentials(url) for url in self.channels))

    @property
    def python_source(self) -> PythonSource:
        """``base`` if nothing is asked of conda and the target has the wanted Python, else ``conda``."""
        there = self.target.base_python
        wanted_is_there = there is not None and (there == self.python or there.startswith(f"{self.python}."))
        return "base" if wanted_is_there and not self.conda else "conda"

    def on(self, base: BaseImage) -> Requirements:
        """Return these requirements with the facts of `base` as their target; a CUDA version stays."""
        return replace(
            self,
            target=Target(
                platform=base.platform,
                glibc=base.glibc,
                cuda=self.target.cuda,
                base_python=base.python.version if base.python else None,
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form in which order of packages does not matter and order of channels does."""
        return {
            "format": _REQUIREMENTS_FORMAT,
            "python": self.python,
            "target": self.target.to_json(),
            "conda": dict(self.conda),
            "pypi": dict(self.pypi),
            "local": dict(self.local),
            "runtime": dict(self.runtime),
            "channels": list(self.channels),
        }

    @property
    def req_id(self) -> str:
        """Identity: 40 hex digits. A Python patch release of the base counts only where the base's Python is used."""
        data = self.to_json()
        if self.python_source == "conda":
            data["target"]["base_python"] = None
        return content_id(data)
