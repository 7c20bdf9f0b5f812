"""Conda requirements and channels as Metaflow's decorators give them, in rattler's words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.errors import ResolveError, SettingError
from prebuilt.core.requirements import Target
from prebuilt.core.storage import storage_errors
from prebuilt.lock.targets import MACOS, glibc_of

if TYPE_CHECKING:
    from rattler import Channel, ChannelConfig, GenericVirtualPackage, MatchSpec

_NAME_END = re.compile(r"[\s<>=!~\[]")
_TOKEN = re.compile(r"^(https?://.*)/t/[^/]+")
# Versions of Linux and macOS on the machine that will run the environment are not known; these are pixi's assumptions.
# Source: https://pixi.sh/latest/workspace/system_requirements/
_LINUX = "4.18"
_ARCHSPEC = {"linux-64": "x86_64", "linux-aarch64": "aarch64", "osx-64": "x86_64", "osx-arm64": "m1"}


def match_specs(packages: Mapping[str, str]) -> list[MatchSpec]:
    """Return the match specs of name → version spec. A bare version means that version; an empty spec or ``*`` any.

    Raises:
        ResolveError: One is malformed.
    """
    return [_match_spec(name, spec) for name, spec in packages.items()]


def _match_spec(name: str, spec: str) -> MatchSpec:
    from rattler import MatchSpec
    from rattler.exceptions import InvalidChannelError, InvalidMatchSpecError

    try:
        return MatchSpec(f"{name} {'' if spec.strip() == '*' else spec}".strip())
    except (InvalidMatchSpecError, InvalidChannelError) as error:
        raise ResolveError(
            f"read the conda requirement {name}: {spec!r}",
            reason=str(error),
            remedy="write a version (1.2.3), a prefix (1.2.*) or a range (>=1,<2)",
        ) from error


def dependency_names(depends: Iterable[str]) -> list[str]:
    """Return the names in match specs of a channel, which end at a blank, an operator or a bracket."""
    return [_NAME_END.split(spec.rpartition("::")[2], maxsplit=1)[0].lower() for spec in depends]


def python_spec(python: str) -> str:
    """Return the version spec of a Python ``3.11`` (any patch release) or ``3.11.7`` (that one)."""
    return f"{python}.*" if python.count(".") == 1 else f"=={python}"


def channel_names(channels: Iterable[str], packages: Iterable[str]) -> list[str]:
    """Return the channels, then those that only some ``channel::name`` mentions."""
    named = [package.rpartition("::")[0] for package in packages]
    return list(dict.fromkeys([*channels, *filter(None, named)]))


def open_channels(names: Iterable[str], config: ChannelConfig) -> list[Channel]:
    """Return channels by name, URL or path.

    Raises:
        ResolveError: One is malformed, or holds a token, which would end in the lock.
    """
    from rattler import Channel
    from rattler.exceptions import InvalidChannelError

    opened = []
    for name in names:
        try:
            channel = Channel(os.path.expanduser(name), config)  # noqa: PTH111 - most are no paths
        except InvalidChannelError as error:
            raise ResolveError(f"use the conda channel {name}", reason=str(error)) from error
        if _TOKEN.search(channel.base_url):  # of its own, or of the alias that it is below
            raise ResolveError(
                "use a conda channel",
                at=_TOKEN.sub(r"\1/t/***", channel.base_url),
                reason="its URL holds a token, and locks hold no secrets",
                remedy="name the channel, and channel_alias, without it, and give the token to rattler: RATTLER_AUTH_FILE, or"
                " `pixi auth login`",
            )
        opened.append(channel)
    return opened


def virtual_packages(target: Target) -> list[GenericVirtualPackage]:
    """Return what conda may assume of the target. Nothing of the host is in it.

    Source: https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-virtual.html
    """
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version

    known = [("__unix", "0", "0"), ("__archspec", "1", _ARCHSPEC[target.platform.subdir])]
    if target.platform.os == "linux":
        known += [("__linux", _LINUX, "0"), ("__glibc", ".".join(map(str, glibc_of(target))), "0")]
    else:
        known += [("__osx", ".".join(map(str, MACOS)), "0")]
    if target.cuda is not None:
        known += [("__cuda", target.cuda, "0")]
    return [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString(build)) for name, version, build in known
    ]


def host_cuda(cache: Path) -> str | None:
    """Return the CUDA version that this machine's driver supports, as conda sees it; None without one.

    ``CONDA_OVERRIDE_CUDA`` says another, or none at all if it is empty. What was found out stays in `cache` until the next boot.

    Raises:
        SettingError: ``CONDA_OVERRIDE_CUDA`` is no version.
        StorageError: The cache is not writable.
    """
    from rattler import VirtualPackage, VirtualPackageOverrides
    from rattler.exceptions import DetectVirtualPackageError

    with storage_errors("keep what is known of this machine", cache):
        cache.mkdir(parents=True, exist_ok=True)
    try:
        found = VirtualPackage.detect(VirtualPackageOverrides.from_env(), cache)
    except DetectVirtualPackageError as error:
        raise SettingError("CONDA_OVERRIDE_CUDA", reason=str(error), remedy="write a version as 12.4") from error
    generic = (package.into_generic() for package in found)
    return next((str(each.version) for each in generic if each.name.normalized == "__cuda"), None)
