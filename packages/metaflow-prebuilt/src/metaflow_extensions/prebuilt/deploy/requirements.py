"""From what a step asks for to :class:`~prebuilt.core.requirements.Requirements`."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaflow.metaflow_config import get_pinned_conda_libs

from metaflow_extensions.prebuilt.plugins.conda.asked import Asked
from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.local_sources import local_digests
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.core.url_secrets import remember_credentials

if TYPE_CHECKING:
    from prebuilt.lock.condarc import Condarc

DEFAULT_CUDA = "12.4"
"""Highest CUDA version that the drivers of a cluster are assumed to support, where nobody says: that of the oldest driver
branch for data centers which its vendor still maintains for production (550)."""

# Source: https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-arch
_ARCHITECTURE_LABELS = ("kubernetes.io/arch", "beta.kubernetes.io/arch")


def host_python() -> str:
    """Return this interpreter's X.Y, which steps get that ask for no version: artifacts are pickled."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def wants_gpu(compute: Any) -> bool:
    """Return whether a compute decorator asks for GPUs; ``@resources`` is merged into it by then."""
    return float(compute.attributes.get("gpu") or 0) > 0


def target_platform(compute: Any) -> Platform:
    """Return the platform of the machines that a compute decorator sends its step to.

    A node selector of Kubernetes that names an architecture says it for sure; else it is what Metaflow's configuration has.
    """
    selector = compute.attributes.get("node_selector") or {}
    for label in _ARCHITECTURE_LABELS:
        if selector.get(label):
            return Platform(os="linux", architecture=selector[label])
    return Platform.parse(getattr(compute, "target_platform", None) or "linux-64")


def image_requirements(asked: Asked, compute: Any, datastore_type: str, settings: Settings) -> Requirements:
    """Return the requirements of a step that runs where `compute` says; its base image is not known yet."""
    goes_to = target_platform(compute)
    cuda = settings.get("PREBUILT_CUDA_VERSION", DEFAULT_CUDA) if wants_gpu(compute) else None
    try:
        target = Target(platform=goes_to, cuda=cuda)
    except InvalidValueError as error:
        reason = f"{cuda!r} is not a version"
        raise SettingError("METAFLOW_PREBUILT_CUDA_VERSION", reason=reason, remedy="write one as 12.4") from error
    return _requirements(asked, target, datastore_type)


def local_requirements(asked: Asked, datastore_type: str, settings: Settings) -> Requirements:
    """Return the requirements of a step that runs here, on this interpreter if it serves.

    Raises:
        SettingError: ``CONDA_OVERRIDE_CUDA`` is no version.
    """
    library, version = platform.libc_ver()
    target = Target(
        platform=Platform.host(),
        glibc=version if library == "glibc" else None,
        cuda=_host_cuda(settings) if asked.conda else None,  # nothing else knows of it
        base_python=platform.python_version(),
    )
    return _requirements(asked, target, datastore_type)


def _host_cuda(settings: Settings) -> str | None:
    from prebuilt.lock.conda_specs import host_cuda

    return host_cuda(cache_dir(settings) / "detected")


def _requirements(asked: Asked, target: Target, datastore_type: str) -> Requirements:
    from prebuilt.lock.condarc import Condarc

    python, conda_config = asked.python or host_python(), Condarc.load(os.environ)
    return Requirements(
        python=python,
        target=target,
        conda={_of_channel(name, conda_config): spec for name, spec in asked.conda.items()},
        pypi={name: _without_secret_of_url(spec) for name, spec in asked.pypi.items()},
        local=local_digests(asked.pypi, Path.cwd()),
        runtime=get_pinned_conda_libs(python, datastore_type),
        channels=conda_channels(),
    )


def _of_channel(name: str, conda_config: Condarc) -> str:
    """Return ``channel::name`` with the channel that conda's configuration calls so, without credentials: they are remembered for the bake.

    A name that stands for several channels stays: a package can be asked of one.
    """
    channel, colons, package = name.rpartition("::")
    meant = conda_config.expanded([channel]) if channel else ()
    return f"{remember_credentials(meant[0] if len(meant) == 1 else channel)}{colons}{package}"


def _without_secret_of_url(spec: str) -> str:
    """Return ``@ URL`` without the credentials in it, which are remembered for the bake."""
    if not spec.startswith("@"):
        return spec
    url, space, rest = spec[1:].strip().partition(" ")
    return f"@ {remember_credentials(url)}{space}{rest}"


def conda_channels() -> tuple[str, ...]:
    """Return conda channels as Metaflow's own @conda has them: of ``CONDA_CHANNELS``, else of conda's configuration, else conda-forge.

    Credentials in their URLs are remembered for the bake.

    Raises:
        SettingError: A file of conda's configuration is malformed.
    """
    from prebuilt.lock.conda_client import channel_alias
    from prebuilt.lock.condarc import Condarc

    channel_alias()  # it may have credentials, too
    config = Condarc.load(os.environ)
    listed = [channel.strip() for channel in os.environ.get("CONDA_CHANNELS", "").split(",") if channel.strip()]
    channels = config.expanded(listed or config.channels or ["conda-forge"])
    return tuple(remember_credentials(channel) for channel in channels)
