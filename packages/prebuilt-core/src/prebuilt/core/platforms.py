"""Platforms, in the words of OCI and of conda."""

from __future__ import annotations

import platform as _host
import sys
from dataclasses import dataclass

from prebuilt.core.errors import InvalidValueError

# Source: https://github.com/conda/ceps/blob/main/cep-0026.md (subdirs) and the Go values that OCI uses for architectures.
_SUBDIRS = {
    "linux/amd64": "linux-64",
    "linux/arm64": "linux-aarch64",
    "darwin/amd64": "osx-64",
    "darwin/arm64": "osx-arm64",
}
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Platform:
    """An operating system and a processor architecture, in Go's words: ``linux/amd64``."""

    os: str
    architecture: str

    def __post_init__(self) -> None:
        """Refuse platforms that no conda subdir exists for."""
        if str(self) not in _SUBDIRS:
            known = ", ".join(_SUBDIRS)
            raise InvalidValueError("a platform", str(self), reason=f"known platforms are {known}")

    def __str__(self) -> str:
        """Return ``os/architecture``; the inverse of :meth:`parse`."""
        return f"{self.os}/{self.architecture}"

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/amd64`` (a variant such as arm64's ``/v8`` is dropped) or a conda subdir such as ``linux-64``."""
        for known, subdir in _SUBDIRS.items():
            if text == subdir:
                text = known
        os, _, architecture = text.partition("/")
        return cls(os=os, architecture=architecture.removesuffix("/v8"))

    @classmethod
    def host(cls) -> Platform:
        """Return the platform of the running interpreter."""
        machine = _host.machine().lower()
        return cls(os=sys.platform, architecture=_MACHINES.get(machine, machine))

    @property
    def subdir(self) -> str:
        """Conda's word for this platform: ``linux-64``."""
        return _SUBDIRS[str(self)]

    @property
    def machine(self) -> str:
        """The kernel's word for the architecture, which wheel tags use: ``x86_64``; arm64 is ``aarch64`` on Linux."""
        if self.architecture == "amd64":
            return "x86_64"
        return "aarch64" if self.os == "linux" else "arm64"
