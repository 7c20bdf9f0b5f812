"""A command that builds: it is fed, its lines are passed on as they come, and nothing of it stays when we stop, or are killed."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from prebuilt.core.errors import EngineError

_LOOK_S = 0.1  # how soon it is seen that it should stop
_PATIENCE_S = 10.0  # for a command that was asked to stop: it tells its daemon, which stops its steps
_LINE_CHARS = 16_384

_GUARD = """\
group=
while read -r line; do
  [ "$line" = done ] && exit 0
  group=$line
done
if [ -n "$group" ]; then
  kill -TERM "-$group"
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "-$group" || break; sleep 1; done
  kill -KILL "-$group"
fi
[ $# -eq 0 ] || rm -rf -- "$@"
"""
"""Reads the group of processes to watch, then ``done``. The end of input without that says that who started it was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAnswer:
    """What a short command said: its exit status, and both streams as text."""

    status: int
    stdout: str
    stderr: str


def ask_tool(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, timeout_s: float = 30.0
) -> ToolAnswer:
    """Return what a short command says.

    Raises:
        EngineError: It cannot be run, or does not end in time.
    """
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(_run(command), reason=f"it did not answer in {timeout_s:.0f} s") from error
    except OSError as error:
        raise EngineError(_run(command), reason=error.strerror or str(error)) from error
    return ToolAnswer(status=done.returncode, stdout=done.stdout, stderr=done.stderr)


def run_tool(
    command: Sequence[str],
    *,
    output: Callable[[str], None],
    stdin: Iterable[bytes] = (),
    errors: Callable[[str], None] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    check: Callable[[], None] = lambda: None,
    timeout_s: float | None = None,
    remove: Sequence[Path] = (),
) -> int | None:
    """Run a command to its end; return its exit status, or None where it was stopped because its time was up.

    The command is stopped with all processes that it started (SIGTERM, then SIGKILL) also when this function is left by an
    exception, Ctrl-C among them, and when this process is killed. Not SIGINT: what a script starts in the background is deaf to it,
    and so is all that is started from there.

    Args:
        command: Program and arguments.
        output: Is given each line of both of its streams, from another thread, in order.
        errors: Is given the lines of its standard error in place of `output`.
        stdin: Chunks that it is fed.
        environ: Its environment; None for ours.
        folder: Where it runs; None for where we do.
        check: Called before it starts, and several times a second meanwhile; raises to stop it.
        timeout_s: How long it may take; None for ever.
        remove: Folders that are removed should this process be killed meanwhile; otherwise that is the caller's.

    Raises:
        EngineError: It cannot be run.
        Exception: What `stdin`, `output`, `errors` or `check` raised.
    """
    check()
    with _started(command, environ, folder, remove, apart=errors is not None) as process:
        works = [_Work(lambda: _feed(process, stdin)), _Work(lambda: _read(process.stdout, output))]
        if errors is not None:
            works.append(_Work(lambda: _read(process.stderr, errors)))
        try:
            in_time = _wait(process, works, check, timeout_s)
        finally:
            _stop(process)
            works[0].join()
            for reading in works[1:]:
                _join_reading(process, reading)
    for work in works:
        if work.error is not None:
            raise work.error
    return process.returncode if in_time else None


@contextlib.contextmanager
def removed_if_killed(*folders: Path) -> Iterator[None]:
    """Have `folders` removed should this process be killed in the body; otherwise that is the caller's."""
    with _guarded(folders):
        yield


class _Work(threading.Thread):
    """A thread that has started, and keeps the error that ended it."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where the thread is joined
            self.error = error


@contextlib.contextmanager
def _started(
    command: Sequence[str],
    environ: Mapping[str, str] | None,
    folder: Path | None,
    remove: Sequence[Path],
    *,
    apart: bool,
) -> Iterator[subprocess.Popen[bytes]]:
    with _guarded(remove) as watch:
        try:
            process = subprocess.Popen(
                command,
                env=environ,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if apart else subprocess.STDOUT,
                start_new_session=True,  # its group is its own, and is signalled as a whole
            )
        except OSError as error:
            raise EngineError(_run(command), reason=error.strerror or str(error)) from error
        with process:
            try:
                watch(process.pid)
                yield process
            finally:
                _stop(process)


@contextlib.contextmanager
def _guarded(remove: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Have a small process watch whether this one is killed; it then does what this one no longer can.

    What is given tells it the group of processes to end. It is there before them, so that there is no moment without it.
    """
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "guard", *(str(folder.absolute()) for folder in remove)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    stdin = guard.stdin
    assert stdin is not None  # noqa: S101 - it was asked for

    def watch(group: int) -> None:
        stdin.write(f"{group}\n".encode())
        stdin.flush()

    try:
        yield watch
    finally:
        guard.communicate(b"done\n")


def _feed(process: subprocess.Popen[bytes], chunks: Iterable[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with contextlib.suppress(
        BrokenPipeError
    ):  # it ended without reading all; its exit status says whether that is well
        try:
            for chunk in chunks:
                process.stdin.write(chunk)
        finally:
            process.stdin.close()


def _read(stream: IO[bytes] | None, output: Callable[[str], None]) -> None:
    assert stream is not None  # noqa: S101 - it was asked for
    # Universal line ends: what is drawn over with carriage returns becomes lines.
    with io.TextIOWrapper(stream, encoding="utf-8", errors="replace") as lines:
        while line := lines.readline(_LINE_CHARS):
            output(line.rstrip("\n"))


def _wait(
    process: subprocess.Popen[bytes], works: Iterable[_Work], check: Callable[[], None], timeout_s: float | None
) -> bool:
    """Wait for the end, or for a reason to stop; return whether there was time."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
            return True
        check()
        if any(work.error is not None for work in works):
            return True
        if deadline_s is not None and time.monotonic() > deadline_s:
            return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            _signal(process, signal.SIGKILL)
            process.wait()


def _join_reading(process: subprocess.Popen[bytes], reading: _Work) -> None:
    reading.join(_PATIENCE_S)
    if reading.is_alive():  # something that the command started lives on and holds the pipe
        _signal(process, signal.SIGKILL)
        reading.join()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
        os.killpg(process.pid, number)


def _run(command: Sequence[str]) -> str:
    return f"run {Path(command[0]).name}"
