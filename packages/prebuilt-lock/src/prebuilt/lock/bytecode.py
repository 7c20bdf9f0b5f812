"""Bytecode, compiled in long-lived processes of the target's Python: the largest part of a bake, so it is spread over cores."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import final

from prebuilt.core.errors import BuildError, CancelledError

_WORKER = Path(__file__).with_name("compile_worker.py")
_LENGTH_BYTES = 4


@final
class BytecodeCompiler:
    """Compiles source to unchecked-hash ``.pyc`` files, the same bytes wherever the same interpreter does it.

    Calls from several threads are fine. Patch releases of one X.Y run each other's bytecode, but their compilers differ where a bug was
    mended: a file in a thousand.

    Source: PEP 552 (deterministic pycs)
    """

    def __init__(self, interpreter: Path, xy: str, *, workers: int | None = None) -> None:
        """Compile with `interpreter`, a CPython of version `xy`, in up to `workers` processes (one more than there are cores).

        Processes start as they are needed and end when this is closed, or this process dies.
        """
        self.xy = xy
        self._interpreter = interpreter
        self._pool = ThreadPoolExecutor(workers or (os.cpu_count() or 1) + 1, thread_name_prefix="bytecode")
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> BytecodeCompiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, source: bytes, path: str) -> Future[bytes]:
        """Start compiling `source`; `path` is where the file will be at run time.

        The result is empty where the source does not compile: an import of it raises what it always would. It raises
        :class:`BuildError` if the interpreter cannot be run, or dies of the file twice.
        """
        return self._pool.submit(self._compile, source, path)

    def close(self) -> None:
        """Stop at once: what is not done is cancelled."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.kill()
        self._pool.shutdown(cancel_futures=True)
        for worker in workers:
            worker.wait()

    def _compile(self, source: bytes, path: str) -> bytes:
        try:
            return self._compile_once(source, path)
        except EOFError:  # the process died: of this file, or of lack of memory that others had a share in
            pass
        try:
            return self._compile_once(source, path)
        except EOFError as error:
            raise BuildError(
                f"compile {path}", at=str(self._interpreter), reason="the interpreter died of it, twice"
            ) from error

    def _compile_once(self, source: bytes, path: str) -> bytes:
        worker = self._take()
        try:
            pyc = worker.compile(source, path)
        except BaseException:
            worker.kill()
            worker.wait()
            with self._lock:
                self._all.discard(worker)
            self._check_open(f"compile {path}")
            raise
        self._idle.put(worker)
        return pyc

    def _take(self) -> _Worker:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            self._check_open("compile bytecode")
            worker = _Worker(self._interpreter)
            self._all.add(worker)
        try:
            worker.greet(self.xy)
        except BuildError:
            self._check_open("compile bytecode")  # which killed it before it could say what it is
            raise
        return worker

    def _check_open(self, tried: str) -> None:
        """Raise CancelledError if the compiler was closed, which is why its processes fail then."""
        if self._closed:
            raise CancelledError(tried, reason="the compiler was closed") from None


class _Worker:
    """One process that compiles one file at a time."""

    def __init__(self, interpreter: Path) -> None:
        self._interpreter = interpreter
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        try:
            self._process = subprocess.Popen(
                [interpreter, "-S", "-s", "-B", "-W", "ignore", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**environ, "PYTHONHASHSEED": "0"},
                start_new_session=True,  # Ctrl-C is for us; the process ends when its standard input does
            )
        except OSError as error:
            raise BuildError("compile bytecode", at=str(interpreter), reason=str(error)) from error

    def greet(self, xy: str) -> None:
        """Check that this is the Python that was asked for: others write other bytes."""
        try:
            greeting = self._receive().decode(errors="replace")
        except EOFError:
            greeting = "nothing"
        if greeting != f"cpython {xy} final ":
            self.kill()
            self.wait()
            raise BuildError(
                "compile bytecode",
                at=str(self._interpreter),
                reason=f"it is not CPython {xy}: it answered {greeting.strip()!r}",
            )

    def compile(self, source: bytes, path: str) -> bytes:
        """Return the ``.pyc`` file of `source`.

        Raises:
            EOFError: The process died.
        """
        name = path.encode()
        lengths = len(name).to_bytes(_LENGTH_BYTES, "big") + len(source).to_bytes(_LENGTH_BYTES, "big")
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - it was asked for as a pipe
        try:
            stdin.write(lengths + name + source)
            stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: closed meanwhile
            raise EOFError from error
        return self._receive()

    def _receive(self) -> bytes:
        length = int.from_bytes(self._read(_LENGTH_BYTES), "big")
        return self._read(length)

    def _read(self, size: int) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - it was asked for as a pipe
        data = stdout.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def kill(self) -> None:
        """End the process; whoever waits for its answer gets an :class:`EOFError`."""
        self._process.kill()

    def wait(self) -> None:
        """Close the pipes of a process that was killed, once it has ended."""
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # bytes that were still to be written to it
                    pipe.close()
