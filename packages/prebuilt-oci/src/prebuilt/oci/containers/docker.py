"""The engine Docker."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from prebuilt.core.errors import ContainerError
from prebuilt.oci.containers.command_line_engine import LOADED, ROOT, CommandLineEngine


class DockerEngine(CommandLineEngine):
    """Docker Engine, from 20.10, Docker Desktop, and whatever else a ``docker`` command talks to."""

    name = "docker"

    def check(self) -> None:
        """Ask the daemon. Raises ContainerError if none answers."""
        version = self._command_line.ask("--version")
        if "podman" in version.lower():
            raise ContainerError("use Docker", reason="the program docker is Podman in disguise", remedy="use podman")
        if problems := self._info.get("ServerErrors"):
            raise ContainerError("use Docker", reason="; ".join(problems), remedy="start Docker, or set DOCKER_HOST")
        if self._info.get("OSType") != "linux":
            raise ContainerError("use Docker", reason=f"it runs containers of {self._info.get('OSType')}, not of linux")

    def user(self) -> str:
        """Return root where root inside is the user outside: rootless daemons, and Docker Desktop's file sharing."""
        is_rootless = any("name=rootless" in option for option in self._info.get("SecurityOptions") or ())
        return ROOT if is_rootless or sys.platform == "darwin" else f"{os.geteuid()}:{os.getegid()}"

    def processors(self) -> int:
        """Return those that the daemon has: in a virtual machine they are fewer than this machine's."""
        return int(self._info["NCPU"])

    def gpu_arguments(self, count: int) -> Sequence[str]:
        """See :class:`CommandLineEngine`."""
        return (f"--gpus={count}",)

    def known_layers(self, diff_ids: Sequence[str]) -> int:
        """Return how many of the bottom layers are those of an image that was loaded before.

        Docker looks a layer up by what is below it before it reads it from an archive. Its containerd image store does not.
        """
        if any("containerd" in str(value) for row in self._info.get("DriverStatus") or () for value in row):
            return 0
        ids = self._command_line.ask("image", "ls", "--quiet", "--no-trunc", f"--filter=reference={LOADED}").split()
        images = json.loads(self._command_line.ask("image", "inspect", *ids)) if ids else []
        return max((_common(diff_ids, image["RootFS"]["Layers"]) for image in images), default=0)

    @cached_property
    def _info(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self._command_line.ask("info", "--format={{json .}}")))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many items both begin with."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
