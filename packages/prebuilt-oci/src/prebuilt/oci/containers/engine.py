"""What runs containers: the contract that Docker, Podman and the rootless engine keep."""

from __future__ import annotations

import contextlib
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import FrameType
from typing import IO, TypeAlias

from prebuilt.oci.containers.run import ContainerRun

Output: TypeAlias = int | IO[bytes] | IO[str] | None
"""Where a stream goes: a file descriptor, a file with one, or None for the caller's own."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


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

    @abstractmethod
    def start(self, run: ContainerRun, *, stdout: Output = None, stderr: Output = None) -> RunningContainer:
        """Have the image at hand, start the command, and return without waiting for it.

        What the command writes goes straight to `stdout` and `stderr`, unbuffered. The container ends with this process,
        whatever ends this process.

        Raises:
            ContainerError: It could not be started.
            RegistryError: The image could not be read.
            DigestMismatchError: The image is damaged.
            StorageError: The local disk is full or not writable.
        """

    def run(self, run: ContainerRun, *, stdout: Output = None, stderr: Output = None) -> int:
        """Start, pass signals on, wait; return the exit code. Raises what :meth:`start` and :meth:`RunningContainer.wait` do.

        In the main thread SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command instead of this process while it runs.
        """
        container = self.start(run, stdout=stdout, stderr=stderr)
        try:
            with forwarding_to(container):
                return container.wait()
        except BaseException:
            container.kill()
            raise


@contextlib.contextmanager
def forwarding_to(container: RunningContainer) -> Iterator[None]:
    """Pass signals on to `container` during the body. Only the main thread can; elsewhere nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, _: FrameType | None) -> None:
        container.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
