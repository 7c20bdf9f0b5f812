"""Servers that a test starts as processes: found, started, waited for, stopped."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prebuilt.core.errors import PrebuiltError

_START_S = 120.0  # of a server on a machine that is busy with other things; one that ends is noticed at once
_STOP_S = 20.0

_PORTS = range(11_000, 30_000)
"""Above those of well-known servers, below those of Kubernetes' services and of what systems give by themselves (Linux: 32768)."""

_given: set[int] = set()


class EngineError(PrebuiltError):
    """A test engine is not installed or did not start."""


def find_program(name: str, *, brought_by: str) -> str:
    """Return the path of a program, also where only root's PATH has it.

    Raises:
        EngineError: It is not there; `brought_by` says how to get it.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise EngineError(f"find {name}", reason="it is not installed", remedy=brought_by)
    return found


def free_port() -> int:
    """Return a port that nothing of this machine listens on, each time another one.

    The system gives it to nobody before its server is up: it is none of those that connections, and servers on port 0, get by themselves.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("", port))
            if port not in _given:
                _given.add(port)
                return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    timeout_s: float = _START_S,
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the time of the body. It is stopped whatever happens, on Linux also when this process is killed.

    Args:
        command: Program and arguments.
        log: Where its output goes.
        ready: Whether it answers yet.
        timeout_s: How long it may take until it does.
        environ: Its environment; None for ours.

    Raises:
        EngineError: It ended or did not answer in time; the message has the end of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_bound_to_us(), *command], stdout=output, stderr=output, start_new_session=True, env=environ
        )
    try:
        _wait(process, command[0], log, ready, timeout_s)
        yield process
    finally:
        _stop(process)


def _bound_to_us() -> list[str]:
    """Return what goes before a command for it to get SIGTERM when the thread that starts it ends, however that happens."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=TERM", "--"] if setpriv else []


def _wait(process: subprocess.Popen[bytes], name: str, log: Path, ready: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline_s:
            state = "it does not answer" if process.poll() is None else f"it ended with {process.returncode}"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise EngineError(f"start {Path(name).name}", reason=f"{state} after {timeout_s:.0f} s:\n{tail}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
