"""What runs containers: the contract that Docker, Podman and the rootless engine keep."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO, TypeAlias

from prebuilt.oci.containers.run import ContainerRun

Output: TypeAlias = int | IO[bytes] | IO[str] | None
"""Where a stream goes: a file descriptor, a file with one, or None for the caller's own."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_LOOK_S = 0.5


class RunningContainer(ABC):
    """A command that was started. All methods may be called from any thread."""

    @abstractmethod
    def send_signal(self, number: int) -> None:
        """Send a signal to the command; nothing happens once it has ended."""

    @abstractmethod
    def kill(self) -> None:
        """End the command and all that it started, at once. Idempotent."""

    @abstractmethod
    def wait(self) -> int:
        """Wait for the end, leave nothing behind, and return the exit code: 128 + N after signal N, 126 and 127 as in a shell.

        Raises:
            ContainerError: The engine failed, not the command.
        """


Launch: TypeAlias = Callable[[Output, Output], RunningContainer]
"""Starts a command whose image is at hand; takes where its standard output and standard error go."""


class Engine(ABC):
    """Runs commands in images. Concurrent calls are fine.

    Attributes:
        name: What ``METAFLOW_PREBUILT_CONTAINER_ENGINE`` calls it.
    """

    name: str

    @abstractmethod
    def check(self) -> None:
        """Return if containers can be run.

        Raises:
            ContainerError: They cannot; it says why and what to do about it.
        """

    def notes(self, run: ContainerRun) -> tuple[str, ...]:  # noqa: ARG002 - engines that hold every limit need none
        """Return what the user should know about `run` on this engine: one line each, above all limits that are not held."""
        return ()

    def check_run(self, run: ContainerRun) -> None:  # noqa: B027 - engines that run everything need none
        """Return if `run` can be run, as far as that can be told without its image; :meth:`prepare` sees to it, too.

        Raises:
            ContainerError: It cannot.
        """

    @abstractmethod
    def prepare(self, run: ContainerRun) -> Launch:
        """Have the image at hand, which may take minutes; return what starts the command, in a moment.

        Raises:
            ContainerError: The image cannot be run here.
            RegistryError: The image could not be read.
            DigestMismatchError: The image is damaged.
            StorageError: The local disk is full or not writable.
        """

    def start(self, run: ContainerRun, *, stdout: Output = None, stderr: Output = None) -> RunningContainer:
        """Prepare and start the command, and return without waiting for it.

        What the command writes goes straight to `stdout` and `stderr`, unbuffered. The container ends with this process,
        whatever ends this process. Raises what :meth:`prepare` does, and ContainerError if it cannot be started.
        """
        return self.prepare(run)(stdout, stderr)

    def run(self, run: ContainerRun, *, stdout: Output = None, stderr: Output = None) -> int:
        """Prepare, start, pass signals on, wait; return the exit code. Raises what the parts of it do.

        In the main thread SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command instead of this process from when it starts to its
        end, unless this process ignores them. An exception from another signal's handler kills the container.
        """
        return run_to_end(self.prepare(run), stdout=stdout, stderr=stderr)


def run_to_end(launch: Launch, *, stdout: Output = None, stderr: Output = None) -> int:
    """Do the rest of :meth:`Engine.run` after :meth:`Engine.prepare`: for those whose time counts from when the command starts."""
    forwarding = _Forwarding()
    with forwarding.during():
        container = launch(stdout, stderr)
        try:
            forwarding.to(container)
            return container.wait()
        except BaseException:
            container.kill()
            raise


def exit_status(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, and handle signals meanwhile: in a wait without an end one that came just before it would not be heard."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK_S)


class _Forwarding:
    """Passes signals on, from the main thread only: elsewhere Python lets nobody handle them."""

    def __init__(self) -> None:
        self._container: RunningContainer | None = None
        self._early: list[int] = []

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        """Handle signals in the body, but for those that this process ignores: under nohup a hang-up ends nothing."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        heard = (
            [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN] if in_main_thread else []
        )
        before = {number: signal.signal(number, self._handle) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def to(self, container: RunningContainer) -> None:
        """Pass on to `container`, also what came while it was started."""
        self._container = container
        while self._early:
            container.send_signal(self._early.pop(0))

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._container is None:
            self._early.append(number)
        else:
            self._container.send_signal(number)
