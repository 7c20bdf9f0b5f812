"""The engine Podman."""

from __future__ import annotations

import json
from collections.abc import Sequence

from prebuilt.core.errors import ContainerError
from prebuilt.oci.config import is_loopback
from prebuilt.oci.containers.command_line_engine import ROOT, CommandLineEngine
from prebuilt.oci.reference import split_repository


class PodmanEngine(CommandLineEngine):
    """Podman, with or without root."""

    name = "podman"

    def check(self) -> None:
        """Ask Podman, which has no daemon on Linux and one in a virtual machine elsewhere. Raises ContainerError if it fails."""
        host = json.loads(self._command_line.ask("info", "--format=json")).get("host") or {}
        if host.get("os") != "linux":
            raise ContainerError("use Podman", reason=f"it runs containers of {host.get('os')}, not of linux")

    def user(self) -> str:
        """Return root: without root, Podman makes root inside the user outside, as the rootless engine here does."""
        return ROOT

    def gpu_arguments(self, count: int) -> Sequence[str]:
        """Name the first GPUs by the Container Device Interface, which Podman uses."""
        return tuple(f"--device=nvidia.com/gpu={number}" for number in range(count))

    def pull_arguments(self, repository: str) -> Sequence[str]:
        """Allow plain HTTP for registries on this machine, as Docker does by itself."""
        host, _ = split_repository(repository)
        return ("--tls-verify=false",) if is_loopback(host.rpartition(":")[0] or host) else ()
