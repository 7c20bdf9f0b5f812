"""Kaniko's executor, built from its Go module the first time, and an image of it like the official one."""

from __future__ import annotations

import os
from pathlib import Path

from prebuilt.oci.repository import Repository
from prebuilt.testing.engines.cache import kept
from prebuilt.testing.engines.golang import build_programs

VERSION = "v1.24.0"
_MODULE = "github.com/GoogleContainerTools/kaniko"

# Source: https://github.com/GoogleContainerTools/kaniko/blob/v1.24.0/deploy/Dockerfile
_ENV = {
    "HOME": "/root",
    "USER": "root",
    "PATH": "/usr/local/bin:/kaniko",
    "SSL_CERT_DIR": "/kaniko/ssl/certs",
    "DOCKER_CONFIG": "/kaniko/.docker/",
}


def kaniko_executor() -> Path:
    """Return the program ``executor``: what ``PREBUILT_KANIKO_EXECUTOR`` names, to test another release; else built once and kept.

    Building takes some five minutes on two processors. Standard library only.

    Raises:
        EngineError: The module or Go cannot be got, or the build failed.
    """
    ready = os.environ.get("PREBUILT_KANIKO_EXECUTOR")
    if ready:
        return Path(ready)
    return kept(f"kaniko-{VERSION}", _build) / "executor"


def push_kaniko_image(repository: Repository) -> str:
    """Push an image laid out like the official one; return its reference by digest.

    Raises:
        EngineError: The executor cannot be built.
    """
    from prebuilt.testing.machine import certificates
    from prebuilt.testing.tar_image import TarLayer, push_tar_image

    layer = (
        TarLayer()
        .folder("kaniko", mode=0o777)
        .add("kaniko/executor", data=kaniko_executor().read_bytes(), mode=0o755)
        .folder("kaniko/.docker")
        .folder("kaniko/ssl")
        .folder("kaniko/ssl/certs")
        .add("kaniko/ssl/certs/ca-certificates.crt", data=certificates() or b"")
        .folder("etc")
        .add("etc/nsswitch.conf", data=b"hosts: files dns\n")
        .folder("root")
        .folder("workspace")
    )
    return push_tar_image(repository, [layer], env=_ENV, workdir="/workspace", entrypoint=["/kaniko/executor"])


def _build(folder: Path) -> None:
    values = {f"{_MODULE}/pkg/version.version": VERSION}
    build_programs(f"{_MODULE}@{VERSION}", "./cmd/executor", folder=folder, values=values)
