"""The engine Podman."""

from __future__ import annotations

import json
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from prebuilt.core.errors import ContainerError
from prebuilt.core.loopback import is_loopback
from prebuilt.oci.containers.command_line_engine import ROOT, CommandLineEngine
from prebuilt.oci.containers.run import ContainerRun
from prebuilt.oci.reference import split_repository

_INIT_FOLDERS = "/usr/libexec/podman:/usr/lib/podman:/usr/local/libexec/podman:/usr/local/lib/podman:/usr/bin"
"""Source: podman's containers.conf(5), helper_binaries_dir and init_path."""

_IN_FOLDER = 'mkdir -p -- "$0" && cd -- "$0" && exec "$@"'


class PodmanEngine(CommandLineEngine):
    """Podman, with or without root."""

    name = "podman"

    def check(self) -> None:
        """Ask Podman, which has no daemon on Linux and one in a virtual machine elsewhere. Raises ContainerError if it fails."""
        if self._host.get("os") != "linux":
            raise ContainerError("use Podman", reason=f"it runs containers of {self._host.get('os')}, not of linux")
        if sys.platform == "linux":
            _find_init()

    def engine_arguments(self) -> Sequence[str]:
        """Keep this process's limits, and name another init if Podman's is missing: distributions only recommend it.

        Podman would raise the limits of open files and processes, which not every root may. Its ``--ulimit=host`` raises them, too.
        """
        if sys.platform != "linux":
            return ("--init",)
        init = _find_init()
        return ("--init", *_limits(), *([f"--init-path={init}"] if init else []))

    def adapted(self, run: ContainerRun) -> ContainerRun:
        """Leave out limits that Podman has no control group for, and have a shell make the working directory: Podman makes the image's only."""
        run = super().adapted(run)
        run = replace(
            run,
            memory_mb=run.memory_mb if self._controls("memory") else None,
            cpus=run.cpus if self._controls("cpu") else None,
        )
        if run.workdir is None or run.workdir in {mount.target for mount in run.mounts}:
            return run
        return replace(run, workdir=None, command=("/bin/sh", "-c", _IN_FOLDER, run.workdir, *run.command))

    def notes(self, run: ContainerRun) -> tuple[str, ...]:
        """Return a line for limits, too, that an ordinary user's Podman was not given control of."""
        limits = (
            ("memory", f"memory ({run.memory_mb} MB)", run.memory_mb),
            ("cpu", f"processors ({run.cpus})", run.cpus),
        )
        texts = [text for name, text, value in limits if value is not None and not self._controls(name)]
        if not texts:
            return super().notes(run)
        line = f"prebuilt: podman does not limit {' and '.join(texts)}: systemd delegates no control of that"
        return (*super().notes(run), line)

    def _controls(self, controller: str) -> bool:
        """Return whether Podman has a control group of this kind, without which it refuses a limit; older releases do not say."""
        return controller in self._host.get("cgroupControllers", (controller,))

    def user(self) -> str:
        """Return root: without root, Podman makes root inside the user outside, as the rootless engine here does."""
        return ROOT

    def processors(self) -> int:
        """Return those of the machine, a virtual one where there is no Linux."""
        return int(self._host["cpus"])

    def gpu_arguments(self, count: int) -> Sequence[str]:
        """Name the first GPUs by the Container Device Interface, which Podman uses."""
        return tuple(f"--device=nvidia.com/gpu={number}" for number in range(count))

    def pull_arguments(self, repository: str) -> Sequence[str]:
        """Allow plain HTTP for registries on this machine, as Docker does by itself."""
        host, _ = split_repository(repository)
        return ("--tls-verify=false",) if is_loopback(host.rpartition(":")[0] or host) else ()

    @cached_property
    def _host(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self._command_line.ask("info", "--format=json")).get("host") or {})


def _find_init() -> str | None:
    """Return the init to name; None for Podman's own. It must be static, since an image may have no C library.

    Raises:
        ContainerError: There is none.
    """
    if shutil.which("catatonit", path=_INIT_FOLDERS):
        return None
    static = shutil.which("tini-static")
    if static is None:
        raise ContainerError(
            "use Podman", reason="its init program is not installed", remedy="install the package catatonit"
        )
    return static


def _limits() -> tuple[str, ...]:
    """Return the limits of this process; Podman itself has lowered that of processes to what the kernel can number."""
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
    soft, hard = (
        most if limit == resource.RLIM_INFINITY else min(limit, most)
        for limit in resource.getrlimit(resource.RLIMIT_NPROC)
    )
    return ("--ulimit=nofile={}:{}".format(*open_files), f"--ulimit=nproc={soft}:{hard}")
