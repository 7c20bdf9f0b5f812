"""Builders of ``docker buildx``: made for a test, gone after it."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from prebuilt.testing.engines.buildkit import BuildKit
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.engines.machine_image import import_buildkit_image

EMBEDDED = "default"
"""The builder that a daemon has in itself: driver ``docker``, always there."""

_CONTAINER_CONFIG = """\
[worker.oci]
  networkMode = "host"
[registry."{registry}"]
  http = true
"""


@contextlib.contextmanager
def remote_builder(docker: Docker, buildkit: BuildKit) -> Iterator[str]:
    """Give the name of a builder of the driver ``remote`` that hands its work to a BuildKit daemon.

    Raises:
        EngineError: The engine was started without buildx.
    """
    with _builder(docker, "--driver=remote", buildkit.address) as name:
        yield name


@contextlib.contextmanager
def container_builder(docker: Docker, *, registry: str) -> Iterator[str]:
    """Give the name of a builder of the driver ``docker-container``: BuildKit in a privileged container, on the machine's network.

    Args:
        docker: Where the container runs.
        registry: ``host:port`` of a registry that speaks plain HTTP.

    Raises:
        EngineError: The engine was started without buildx, or BuildKit could not be built or started.
    """
    image = import_buildkit_image(docker)
    with tempfile.TemporaryDirectory(prefix="prebuilt-buildx-") as folder:
        config = Path(folder, "buildkitd.toml")
        config.write_text(_CONTAINER_CONFIG.format(registry=registry), encoding="utf-8")
        options = (
            "--driver=docker-container",
            f"--driver-opt=image={image},network=host",
            f"--buildkitd-config={config}",
            "--buildkitd-flags=--allow-insecure-entitlement=network.host",
            "--bootstrap",
        )
        with _builder(docker, *options) as name:
            yield name


@contextlib.contextmanager
def kubernetes_builder(docker: Docker, namespace: Namespace, *, image: str) -> Iterator[str]:
    """Give the name of a builder of the driver ``kubernetes``: BuildKit in a privileged pod, a Deployment of the builder's name.

    Args:
        docker: A command line; no daemon is asked.
        namespace: Where the pod runs. It speaks plain HTTP with the cluster's registry.
        image: Of BuildKit, as ``push_buildkit_image`` of :mod:`prebuilt.testing.engines.machine_image` pushes it.

    Raises:
        EngineError: The command line has no buildx, or the pod did not start.
    """
    with tempfile.TemporaryDirectory(prefix="prebuilt-buildx-") as folder:
        config = Path(folder, "buildkitd.toml")
        config.write_text(_CONTAINER_CONFIG.format(registry=namespace.cluster.registry), encoding="utf-8")
        options = (
            "--driver=kubernetes",
            f"--driver-opt=image={image},namespace={namespace.name},timeout=300s",
            f"--buildkitd-config={config}",
            "--bootstrap",
        )
        # buildx notes the file with the builder, for whoever uses it later.
        with _builder(docker, *options, environ=[("KUBECONFIG", str(namespace.kubeconfig))]) as name:
            yield name


@contextlib.contextmanager
def _builder(docker: Docker, *options: str, environ: Sequence[tuple[str, str]] = ()) -> Iterator[str]:
    name = f"prebuilt-{secrets.token_hex(4)}"
    try:
        docker.ask("buildx", "create", f"--name={name}", *options, environ=environ)
        yield name
    finally:  # also a builder whose container did not start is there
        if name in docker.ask("buildx", "ls", "--format={{.Name}}").split():
            docker.ask("buildx", "rm", name)
