"""A real BuildKit daemon on loopback, built from its Go module the first time and kept in the cache folder."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prebuilt.testing.engines.cache import kept
from prebuilt.testing.engines.golang import build_programs
from prebuilt.testing.engines.process import find_program, free_port, running

VERSION = "v0.34.2"

_CONFIG = """\
root = "{folder}/root"
insecure-entitlements = ["network.host"]
[grpc]
  address = ["{address}"]
[worker.oci]
  enabled = true
  binary = "{runc}"
  networkMode = "host"
[worker.containerd]
  enabled = false
[registry."{registry}"]
  http = true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildKit:
    """A daemon that is up: the path of ``buildctl`` and the daemon's address."""

    buildctl: Path
    address: str


def buildkit_programs() -> Path:
    """Return the folder that has ``buildkitd`` and ``buildctl``; builds them from the Go module cache if it has not.

    Takes some six minutes on two processors the first time.

    Raises:
        EngineError: The module or Go cannot be got, or the build failed.
    """
    return kept(f"buildkit-{VERSION}", _build)


def _build(folder: Path) -> None:
    build_programs(f"github.com/moby/buildkit@{VERSION}", "./cmd/buildctl", "./cmd/buildkitd", folder=folder)


@contextlib.contextmanager
def buildkit_daemon(folder: Path, *, registry: str, environ: Mapping[str, str] | None = None) -> Iterator[BuildKit]:
    """Give a daemon whose state is below `folder` and that speaks plain HTTP with `registry`. Needs root.

    Args:
        folder: Need not exist.
        registry: ``host:port``.
        environ: What the daemon's environment has beside ours: a proxy, authorities to trust.

    Raises:
        EngineError: BuildKit cannot be built, runc is not installed, or the daemon does not start.
    """
    programs = buildkit_programs()
    runc = find_program("runc", brought_by="apt-get install runc")
    address = f"tcp://127.0.0.1:{free_port()}"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "buildkitd.toml"
    config.write_text(_CONFIG.format(folder=folder, address=address, runc=runc, registry=registry), encoding="utf-8")
    buildctl = programs / "buildctl"

    def answers() -> bool:
        command = [str(buildctl), "--addr", address, "debug", "workers"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    command = [str(programs / "buildkitd"), "--config", str(config)]
    own = {**os.environ, **(environ or {})}
    with running(command, log=folder / "buildkitd.log", ready=answers, environ=own):
        yield BuildKit(buildctl=buildctl, address=address)
