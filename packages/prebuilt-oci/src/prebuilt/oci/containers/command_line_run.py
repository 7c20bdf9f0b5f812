"""A run by Docker's or Podman's command line: its arguments and environment, and the container that it starts."""

from __future__ import annotations

import contextlib
import csv
import io
import queue
import re
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prebuilt.core.errors import ContainerError
from prebuilt.oci.containers.command_line import CommandLine
from prebuilt.oci.containers.engine import Output, RunningContainer, exit_status
from prebuilt.oci.containers.run import ContainerRun, Mount

LABEL = "metaflow-prebuilt"
_ENGINE_FAILED = 125
_DELIVERY_S = 30.0  # an engine makes and starts a container of an image that it has in a second
_RETRY_S = 0.05

_STEERING = re.compile(
    r"PATH|HOME|TMPDIR|TERM|LANG|SHELL|LC_.*|LD_.*|GO.*|XDG_.*|SSL_.*|SSH_.*|DBUS_.*|DOCKER_.*|BUILDKIT_.*|CONTAINER.*|PODMAN.*"
    r"|_CONTAINERS_.*|STORAGE_.*|REGISTRY_.*|NOTIFY_SOCKET|LISTEN_.*|OTEL_.*|(?i:.*_proxy)"
)
"""Variables that would change what the command line itself does."""

_GUARD = """\
folder=$1; shift
if read -r pid; then read -r end && exit; kill -9 "$pid"; "$@"; fi
rm -rf -- "$folder"
"""
"""Reads the pipe that only this process holds: a line when the command line runs, and one when it is done. If the pipe ends
before, this process is dead, and the container goes, too, with the folder of its id."""


def run_arguments(run: ContainerRun, *, user: str, gpus: Sequence[str]) -> list[str]:
    """Return the arguments of ``run`` that say what is run, without environment, image and command."""
    arguments = ["--network=host", "--pull=never", f"--user={user}", f"--label={LABEL}", "--log-driver=none"]
    arguments += ["--security-opt=no-new-privileges", "--security-opt=label=disable", *gpus]
    arguments += [f"--mount={_mount(mount)}" for mount in run.mounts]
    if run.workdir is not None:
        arguments.append(f"--workdir={run.workdir}")
    if run.memory_mb is not None:
        arguments.append(f"--memory={run.memory_mb}m")
    if run.cpus is not None:
        arguments.append(f"--cpus={run.cpus}")
    return arguments


def environment(env: Mapping[str, str], own: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments that set `env` in a container, and the environment for the command line, made from its `own`.

    Values, which may be secrets, are passed by the environment and not in arguments, which everybody can see; also newlines go
    through unharmed. Variables that steer the command line itself go into arguments.
    """
    arguments, passed = [], dict(own)
    for name, value in env.items():
        if own.get(name) == value or not _STEERING.fullmatch(name):
            passed[name] = value
            arguments += ["--env", name]
        else:
            arguments += ["--env", f"{name}={value}"]
    return arguments, passed


def _mount(mount: Mount) -> str:
    """Return the value of ``--mount``: fields as in CSV, since a path may have commas."""
    fields = [
        "type=bind",
        f"source={mount.source}",
        f"target={mount.target}",
        *(["readonly"] if mount.read_only else []),
    ]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


class CommandLineContainer(RunningContainer):
    """A container and the attached ``docker run`` that streams what it writes.

    Signals do not go by that: what comes before it listens ends it alone (Podman before 4.4.2), or is lost (Docker, until the
    container has started). Source: https://github.com/containers/podman/pull/17489.
    """

    def __init__(
        self,
        command_line: CommandLine,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        stdout: Output,
        stderr: Output,
    ) -> None:
        """Start it; `arguments` follow those of ``run`` that make it end with this process."""
        self._command_line = command_line
        self._name = f"{LABEL}-{secrets.token_hex(8)}"
        self._ending, self._has_ended = threading.Lock(), False
        self._files = tempfile.TemporaryDirectory(prefix=f"{LABEL}-")
        self._cid = Path(self._files.name) / "cid"
        program = command_line.path()
        own = ["run", "--rm", f"--name={self._name}", f"--cidfile={self._cid}"]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", self._files.name, program, "rm", "--force", "--volumes", self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._process = subprocess.Popen(
                [program, *own, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=dict(env),
                start_new_session=True,  # Ctrl-C at a terminal comes to this process alone, which passes it on: once
            )
            self._tell_guard(f"{self._process.pid}\n")
            self._signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()
            threading.Thread(target=self._deliver_signals, name=f"signals of {self._name}", daemon=True).start()
        except BaseException:
            self._guard.communicate()  # the end of its pipe: it removes what there is
            self._files.cleanup()
            raise

    def send_signal(self, number: int) -> None:
        """Have the engine send a signal, from a thread of its own: this may be a handler, which cannot wait until it can be sent."""
        self._signals.put(number)

    def kill(self) -> None:
        """Remove the container by force."""
        self._process.kill()
        with contextlib.suppress(ContainerError):  # it is gone already
            self._command_line.ask("rm", "--force", "--volumes", self._name)
        self._end()

    def wait(self) -> int:
        """Wait; return the exit code. Raises ContainerError if the container could not be started."""
        code = exit_status(self._process)
        with self._ending:
            was_created = self._has_ended or (self._cid.is_file() and self._cid.stat().st_size > 0)
        if code < 0:  # the command line was killed, which does not end the container
            self.kill()
        self._end()
        if code == _ENGINE_FAILED and not was_created:
            raise ContainerError(
                f"run a container with {self._command_line.program}",
                reason="it could not be made",
                remedy=f"{self._command_line.program} says why on the line above",
            )
        return code if code >= 0 else 128 - code

    def _end(self) -> None:
        with self._ending:
            if not self._has_ended:
                self._has_ended = True
                self._signals.put(None)
                self._dismiss_guard()
                self._process.wait()
                self._files.cleanup()

    def _deliver_signals(self) -> None:
        while (number := self._signals.get()) is not None:
            deadline_s = time.monotonic() + _DELIVERY_S
            while self._process.poll() is None and not self._sends(number):
                if time.monotonic() > deadline_s:
                    self._process.kill()  # as nothing can be told to the container, it is removed
                time.sleep(_RETRY_S)

    def _sends(self, number: int) -> bool:
        """Return whether the engine sent a signal to the container; not if that has not started yet, or has ended."""
        try:
            self._command_line.ask("kill", f"--signal={number}", self._name)
        except ContainerError:
            return False
        return True

    def _dismiss_guard(self) -> None:
        self._tell_guard("\ndone\n")
        self._guard.communicate()

    def _tell_guard(self, line: str) -> None:
        assert self._guard.stdin is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(BrokenPipeError):  # somebody killed it
            self._guard.stdin.write(line.encode())
            self._guard.stdin.flush()
