"""One run: a command in an image, with what it sees of this machine."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from prebuilt.core.errors import InvalidValueError
from prebuilt.oci.reference import is_layout, parse_reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file or folder of this machine that the command sees at `target`, an absolute path in the image.

    `source` must exist. A target that the image lacks is made.
    """

    source: Path
    target: str
    read_only: bool = False

    def __post_init__(self) -> None:
        """Check that both ends are absolute."""
        if not self.source.is_absolute():
            raise InvalidValueError("the source of a mount", str(self.source), reason="it is not absolute")
        _check_inside("the target of a mount", self.target)
        if posixpath.normpath(self.target).strip("/") == "":
            raise InvalidValueError("the target of a mount", self.target, reason="the root cannot be mounted over")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRun:
    """A command to run in an image. The image's own entry point and command are not used.

    The command is root inside, or has the caller's ids, so that what it writes into mounts belongs to the caller. Its network is
    this machine's; its standard input is empty.

    Attributes:
        image: ``host/repository@sha256:…``, or ``oci:/folder@sha256:…`` for an image layout. Docker and Podman also run
            ``host/repository:tag``, as they have it or pull it.
        command: Program and arguments; the program is looked up in the PATH of the image.
        env: Laid over the image's own variables.
        mounts: Made in this order.
        workdir: Made if the image lacks it; None for the image's own.
        memory_mb: Limit in MiB. See :meth:`Engine.notes`: not every engine can hold limits.
        cpus: Limit in processors.
        gpus: How many GPUs the command sees.
    """

    image: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None
    memory_mb: int | None = None
    cpus: float | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        """Check the values; freeze the mapping."""
        reference = parse_reference(self.image)
        if reference.digest is None and is_layout(reference.repository):
            raise InvalidValueError(
                "a pinned image", self.image, reason="it has no digest", remedy="write image@sha256:…"
            )
        if not self.command or not self.command[0]:
            raise InvalidValueError("a command", self.command, reason="it is empty")
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise InvalidValueError(
                    "an environment variable", name, reason="a name has no =, and neither part a NUL"
                )
        if self.workdir is not None:
            _check_inside("a working directory", self.workdir)
        for what, number in (("memory_mb", self.memory_mb), ("cpus", self.cpus)):
            if number is not None and number <= 0:
                raise InvalidValueError(what, number, reason="it is not above 0")
        if self.gpus < 0:
            raise InvalidValueError("gpus", self.gpus, reason="it is negative")
        object.__setattr__(self, "env", MappingProxyType(dict(self.env)))


def _check_inside(what: str, path: str) -> None:
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidValueError(what, path, reason="it is not an absolute path without ..")
