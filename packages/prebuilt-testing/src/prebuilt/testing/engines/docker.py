"""A real Docker Engine of the test's own: its daemon, socket and data in one folder, gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prebuilt.testing.engines.bridge import Bridge, network_bridge
from prebuilt.testing.engines.docker_release import DockerRelease, ReleaseName, buildx_plugin
from prebuilt.testing.engines.process import EngineError, running
from prebuilt.testing.engines.runtime import fitting_runtime
from prebuilt.testing.mounts import unmount_below

_TIMEOUT_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A running daemon, and a command line of its own release for it.

    Attributes:
        host: For ``DOCKER_HOST``.
        version: Of the daemon: ``20.10.24``.
        programs: A folder with ``docker`` and nothing else, for ``PATH``.
        config: The folder for ``DOCKER_CONFIG``: of this engine alone, with the plugins that were asked for.
        bridge: Of its containers; None where they use the machine's network.
    """

    host: str
    version: str
    programs: Path
    config: Path
    bridge: Bridge | None

    @property
    def environ(self) -> dict[str, str]:
        """Variables that have a ``docker`` command talk to it and to no other, with no credentials of anybody."""
        return {
            "DOCKER_HOST": self.host,
            "DOCKER_CONTEXT": "",
            "DOCKER_CONFIG": str(self.config),
            "PATH": f"{self.programs}:{os.environ.get('PATH', os.defpath)}",
        }

    @property
    def address(self) -> str:
        """Where a server of the test has to listen for containers to reach it: the bridge's address, else loopback."""
        return str(self.bridge.address.ip) if self.bridge else "127.0.0.1"

    def ask(self, *arguments: str, environ: Sequence[tuple[str, str]] = ()) -> str:
        """Return what a ``docker`` command prints, without the line's end.

        Raises:
            EngineError: It failed; the message has its output.
        """
        command = [str(self.programs / "docker"), *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, **self.environ, **dict(environ)},
            capture_output=True,
            text=True,
            errors="replace",  # of logs that buildx cuts out of a stream
            check=False,
            timeout=_TIMEOUT_S,
        )
        if done.returncode:
            raise EngineError(f"run docker {' '.join(arguments)}", reason=f"{done.stdout}{done.stderr}"[-4000:])
        return done.stdout.strip()


@contextlib.contextmanager
def docker_engine(
    release: ReleaseName = "installed",
    *,
    bridge: bool = False,
    buildx: bool = False,
    environ: Mapping[str, str] | None = None,
    containerd_images: bool = False,
    disk_bytes: int | None = None,
) -> Iterator[Docker]:
    """Give a Docker Engine without images and containers, for the time of the body. Needs root.

    Without a bridge, containers use the machine's network, and so must steps of builds: ``docker build --network=host``. With one
    they are on it by default; the machine is at :attr:`Docker.address`, the world is reached, and ports can be published.

    Args:
        release: Debian's ``docker.io`` as it is installed, or the current release.
        bridge: Whether containers get a network of their own.
        buildx: Whether the command line has the plugin ``buildx``.
        environ: What the daemon's environment has beside ours: a proxy, authorities to trust.
        containerd_images: Whether containerd keeps its images, as new engines of release 29 have it, in place of the daemon.
        disk_bytes: Of a disk of its own, in memory, for all that it keeps; None for the machine's.

    Raises:
        EngineError: A program is missing, this process is not root, or the daemon did not start.
    """
    programs = DockerRelease.find(release)
    if os.geteuid() != 0:
        raise EngineError("start dockerd", reason="this process is not root")
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="prebuilt-docker-", ignore_cleanup_errors=True))
        folder = Path(name)
        stack.callback(unmount_below, folder)
        if disk_bytes is not None:
            (folder / "data").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", folder / "data"], check=True)
        own = stack.enter_context(network_bridge()) if bridge else None
        client = Docker(
            host=f"unix://{folder}/docker.sock",
            version="",
            programs=_links(folder / "programs", programs.docker),
            config=_client_config(folder / "config", buildx=buildx),
            bridge=own,
        )
        stack.enter_context(
            running(
                _command(programs, folder, client, containerd_images=containerd_images),
                log=folder / "log",
                ready=lambda: bool(_version(client)),
                environ={**_environ(programs, folder), **(environ or {})},
            )
        )
        stack.callback(_clear, client)
        yield Docker(
            host=client.host,
            version=_version(client),
            programs=client.programs,
            config=client.config,
            bridge=client.bridge,
        )


def daemonless_docker(folder: Path) -> Docker:
    """Return a command line of the current release, with buildx, for builders that need no daemon. Its files are in `folder`.

    Raises:
        EngineError: It is not there and cannot be got.
    """
    return Docker(
        host=f"unix://{folder}/nobody-listens.sock",
        version="",
        programs=_links(folder / "programs", DockerRelease.current().docker),
        config=_client_config(folder / "config", buildx=True),
        bridge=None,
    )


def _command(programs: DockerRelease, folder: Path, client: Docker, *, containerd_images: bool) -> list[str]:
    config = {
        "runtimes": {"fitting": {"path": str(fitting_runtime(folder, programs.runc))}},
        "default-runtime": "fitting",
        **({"features": {"containerd-snapshotter": True}} if containerd_images else {}),
    }
    (folder / "daemon.json").write_text(json.dumps(config), encoding="utf-8")
    return [
        str(programs.dockerd),
        f"--config-file={folder}/daemon.json",
        f"--host={client.host}",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/run",
        f"--pidfile={folder}/pid",
        f"--bridge={client.bridge.name if client.bridge else 'none'}",
        f"--userland-proxy-path={programs.proxy}",
        *([f"--init-path={programs.init}"] if programs.init else []),
        "--iptables=false",  # no rules but the bridge's own: they would be shared with other daemons, and stay
        "--ip6tables=false",
        "--ip-forward=false",
    ]


def _environ(programs: DockerRelease, folder: Path) -> dict[str, str]:
    """Return the daemon's environment: a ``containerd`` and its shim of the same release come first."""
    links = _links(folder / "daemon", *programs.containerd.parent.glob("containerd*"), programs.proxy)
    return {**os.environ, "PATH": f"{links}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def _links(folder: Path, *programs: Path) -> Path:
    folder.mkdir()
    for program in programs:
        (folder / program.name).symlink_to(program)
    return folder


def _client_config(folder: Path, *, buildx: bool) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    if buildx:
        _links(folder / "cli-plugins", buildx_plugin())
    return folder


def _version(docker: Docker) -> str:
    """Return the version of the daemon, or an empty string while it does not answer."""
    try:
        return docker.ask("version", "--format={{.Server.Version}}")
    except EngineError:
        return ""


def _clear(docker: Docker) -> None:
    """Remove containers, which is faster than the daemon's way to stop them, and networks, whose bridges would stay."""
    if not _version(docker):  # it has died, and with it its containers
        return
    containers = docker.ask("ps", "--all", "--quiet").split()
    if containers:
        # One may be on its way out by itself; the daemon's end takes what is left.
        with contextlib.suppress(EngineError):
            docker.ask("rm", "--force", "--volumes", *containers)
    docker.ask("network", "prune", "--force")
