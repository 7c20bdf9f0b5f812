"""Releases of Docker that tests run: the one that Debian stable has, and the current one from Debian's next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from prebuilt.testing.engines.cache import engine_cache, kept
from prebuilt.testing.engines.debian import debian_suite
from prebuilt.testing.engines.process import EngineError, find_program

ReleaseName: TypeAlias = Literal["installed", "current"]

_PACKAGE = "apt-get install docker.io"
# The suite moves: what it has when the cache is empty is taken, and kept by its version until the folder is removed.
_SUITE = "sid"
_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd", "tini-static")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerRelease:
    """The programs of one release.

    Attributes:
        dockerd: The daemon.
        docker: The command line.
        containerd: What the daemon starts; its shim lies beside it.
        proxy: What the daemon starts for a published port.
        init: What it puts into containers for ``--init``; None for its own choice.
        runc: The machine's: newer ones need a newer C library.
    """

    dockerd: Path
    docker: Path
    containerd: Path
    proxy: Path
    init: Path | None
    runc: Path

    @classmethod
    def find(cls, name: ReleaseName) -> DockerRelease:
        """Return the release that is installed on this machine, or the current one, which is downloaded the first time.

        Raises:
            EngineError: It is not there and cannot be got.
        """
        return cls.installed() if name == "installed" else cls.current()

    @classmethod
    def installed(cls) -> DockerRelease:
        """Return Docker as it is installed; on Debian 12 that is 20.10, the oldest supported."""
        dockerd = Path(find_program("dockerd", brought_by=_PACKAGE))
        beside = (
            dockerd.parent / "docker",
            dockerd.parent.with_name("bin") / "docker",
        )  # a newer one may come first in PATH
        docker = next((path for path in beside if path.exists()), None)
        return cls(
            dockerd=dockerd,
            docker=docker or Path(find_program("docker", brought_by=_PACKAGE)),
            containerd=Path(find_program("containerd", brought_by=_PACKAGE)),
            proxy=Path(find_program("docker-proxy", brought_by=_PACKAGE)),
            init=None,
            runc=Path(find_program("runc", brought_by=_PACKAGE)),
        )

    @classmethod
    def current(cls) -> DockerRelease:
        """Return Docker as Debian's next release will have it."""
        folder = _unpacked()
        return cls(
            dockerd=_program(folder, "dockerd"),
            docker=_program(folder, "docker"),
            containerd=_program(folder, "containerd"),
            proxy=_program(folder, "docker-proxy"),
            init=_program(folder, "tini-static"),
            runc=Path(find_program("runc", brought_by=_PACKAGE)),
        )


def buildx_plugin() -> Path:
    """Return the plugin ``docker-buildx`` that comes with the current release; it works with older daemons, too.

    Raises:
        EngineError: It is not there and cannot be got.
    """
    return next(_unpacked().glob("usr/*/docker/cli-plugins/docker-buildx"))


def _unpacked() -> Path:
    """Return the folder of the newest release that is kept; get the suite's if none is."""
    there = [folder for folder in engine_cache().glob("docker-[0-9]*") if folder.is_dir()]
    if there:
        return max(there, key=lambda folder: folder.stat().st_mtime)
    with debian_suite(_SUITE) as suite:
        return kept(f"docker-{suite.version('docker.io')}", lambda folder: suite.unpack(_PACKAGES, folder))


def _program(folder: Path, name: str) -> Path:
    for place in ("usr/bin", "usr/sbin"):
        if (folder / place / name).exists():
            return folder / place / name
    raise EngineError(f"find {name}", at=str(folder), reason="the packages do not have it", remedy="remove the folder")
