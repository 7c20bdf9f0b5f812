"""The rootless engine: Linux namespaces and overlay mounts, started by this process, with no daemon and no rights of root."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prebuilt.core.errors import ContainerError
from prebuilt.oci.containers.engine import Engine, Launch, Output, RunningContainer, exit_status
from prebuilt.oci.containers.image_source import ImageSource
from prebuilt.oci.containers.kernel import setup_error
from prebuilt.oci.containers.layer_store import LayerStore
from prebuilt.oci.containers.run import ContainerRun
from prebuilt.oci.containers.scratch import Scratch, new_scratch, remove_leftovers
from prebuilt.oci.reference import parse_reference, split_repository

_LAUNCHER = Path(__file__).with_name("launcher.py")
_HOME = "/root"
_KILL_REQUEST = getattr(signal, "SIGRTMAX", signal.SIGKILL)  # as in launcher.py; macOS has none, nor this engine
_KILL_TIMEOUT_S = 10.0
_LOADER_VARIABLES = ("LD_LIBRARY_PATH",)  # Python itself may need it; the rest would show inside, in /proc/1/environ


class RootlessEngine(Engine):
    """Runs commands in namespaces of this user's own.

    Layers are unpacked once into the cache and mounted one over another (overlay); what a command writes goes to a folder of the
    same disk, which is removed after the run. Root inside is this user outside; a root user keeps all ids as they are.
    There is no fallback to copying an image: where overlay mounts are impossible, :meth:`check` says why.
    """

    name = "rootless"

    def __init__(self, cache: Path, images: ImageSource) -> None:
        """Keep layers and scratch folders below `cache`; read images from `images`."""
        self._runs = cache / "runs"
        self._layers = LayerStore(cache / "layers" / "1")
        self._images = images

    def check(self) -> None:
        """Make a container with nothing in it. Raises ContainerError if this machine does not allow it."""
        if sys.platform != "linux":
            raise ContainerError("use the rootless engine", reason="it needs Linux", remedy="install Docker or Podman")
        self._launch((), {"mounts": ()}, None, None).wait()

    def notes(self, run: ContainerRun) -> tuple[str, ...]:
        """Return a line for limits, which need a control group that ordinary users do not have."""
        limits = [
            text
            for text, value in ((f"memory ({run.memory_mb} MB)", run.memory_mb), (f"processors ({run.cpus})", run.cpus))
            if value is not None
        ]
        if not limits:
            return ()
        return (f"prebuilt: the rootless engine does not limit {' and '.join(limits)}; Docker and Podman do",)

    def check_run(self, run: ContainerRun) -> None:
        """Refuse GPUs, and an image by tag: who takes layers out of a registry must know which. See :meth:`Engine.check_run`."""
        if run.gpus:
            raise ContainerError(
                "run a container with GPUs",
                at=run.image,
                reason="the rootless engine has none",
                remedy="use Docker or Podman",
            )
        reference = parse_reference(run.image)
        if reference.digest is None:
            host, _ = split_repository(reference.repository)
            raise ContainerError(
                "run a container",
                at=run.image,
                reason="the rootless engine runs images by digest, and this is a tag",
                remedy=f"log in to {host} (docker login), so that the digest can be asked for, or use Docker or Podman",
            )

    def prepare(self, run: ContainerRun) -> Launch:
        """Unpack the layers that are missing. See :meth:`Engine.prepare`."""
        self.check_run(run)
        remove_leftovers(self._runs)
        image = self._images.get(run.image)
        layers = self._layers.ensure(image.layers, lambda: self._images.open(image.repository))
        description = {
            "command": run.command,
            "env": {"HOME": _HOME, **image.env, **run.env},
            "workdir": run.workdir or image.workdir,
            "mounts": [{"source": str(m.source), "target": m.target, "read_only": m.read_only} for m in run.mounts],
        }
        return partial(self._launch, layers, description)

    def _launch(
        self, layers: Sequence[Path], description: Mapping[str, Any], stdout: Output, stderr: Output
    ) -> RootlessContainer:
        scratch = new_scratch(self._runs)
        folder = os.path.realpath(self._layers.folder if layers else scratch.folder)
        where = {
            "layers": folder,
            "lowers": [layer.name for layer in reversed(layers)] or ["lower"],
            "scratch": os.path.relpath(os.path.realpath(scratch.folder), folder),
        }
        container = RootlessContainer(scratch)
        try:
            report = container.launch({**where, **description}, stdout=stdout, stderr=stderr)
        except BaseException:
            container.kill()
            raise
        if report:
            container.kill()
            raise setup_error(json.loads(report), scratch.folder)
        return container


class RootlessContainer(RunningContainer):
    """A command in namespaces."""

    def __init__(self, scratch: Scratch) -> None:
        """Take over a scratch folder; nothing runs yet."""
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Lock()
        self._is_removed = False

    def launch(self, description: Mapping[str, Any], *, stdout: Output, stderr: Output) -> bytes:
        """Start the launcher; return what went wrong before the command started, or nothing once it runs."""
        status, status_fd = os.pipe()
        with os.fdopen(status, "rb") as report:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-X", "utf8", _LAUNCHER, str(status_fd), str(self._scratch.lock_fd)],
                    stdin=subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    env={name: os.environ[name] for name in _LOADER_VARIABLES if name in os.environ},
                    pass_fds=(status_fd, self._scratch.lock_fd),
                    start_new_session=True,  # Ctrl-C at a terminal comes to this process alone, which passes it on: once
                )
            finally:
                os.close(status_fd)
            assert self._process.stdin is not None  # noqa: S101 - for the type checker
            with (
                contextlib.suppress(BrokenPipeError),
                self._process.stdin as pipe,
            ):  # it says on the other pipe why it ended
                pipe.write(json.dumps({"parent": os.getpid(), **description}).encode())
            return report.read()

    def send_signal(self, number: int) -> None:
        """Have the launcher pass a signal on."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Have the launcher kill everything and wait for it. If the launcher does not, kill it; the kernel kills the rest."""
        if self._process is not None:
            self._process.send_signal(_KILL_REQUEST)
            try:
                self._process.wait(_KILL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()

    def wait(self) -> int:
        """Wait, remove the scratch folder, return the exit code."""
        code = exit_status(self._process) if self._process is not None else 0
        with self._ending:
            if not self._is_removed:
                self._scratch.remove()
                self._is_removed = True
        return code if code >= 0 else 128 - code
