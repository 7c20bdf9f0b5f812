"""What makes layers: threads, downloads and compiling processes, shared by all images that are under way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from prebuilt.core.errors import BuildError
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir, remove_abandoned
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.native.config import NativeConfig
from prebuilt.oci.layer import PieceBuffers

T = TypeVar("T")


class Workbench:
    """The tools, in working order until they are closed."""

    def __init__(self, settings: Settings) -> None:
        """Start threads as they are needed."""
        self._config = NativeConfig.from_settings(settings)
        cache = cache_dir(settings)
        self.scratch: Path = cache / "scratch"
        remove_abandoned(self.scratch)
        self.files = PackageFiles(settings, IndexConfig.load(settings), cache)
        self.threads = ThreadPoolExecutor(self._config.layer_workers, thread_name_prefix="layer")
        self.buffers = PieceBuffers()
        self._lock = threading.Lock()
        self._compilers: dict[str, BytecodeCompiler] = {}
        self._under_way: dict[tuple[str, str], Future[Any]] = {}

    def compiler(self, xy: str, otherwise: Callable[[], Path | None] = lambda: None) -> BytecodeCompiler:
        """Return the compiler for Python `xy`; `otherwise` gets an interpreter where this machine has none.

        Raises:
            BuildError: There is no interpreter of that version.
        """
        interpreter = find_interpreter(xy) or otherwise()  # not under the lock: it may be a download
        with self._lock:
            if xy not in self._compilers:
                if interpreter is None:
                    raise BuildError(
                        f"compile bytecode for Python {xy}",
                        reason=f"no Python {xy} is on this machine",
                        remedy=f"install one, for example with `uv python install {xy}`",
                    )
                self._compilers[xy] = BytecodeCompiler(interpreter, xy, workers=self._config.compile_workers)
            return self._compilers[xy]

    def once(self, repository: str, key: str, work: Callable[[], T]) -> Future[T]:
        """Return the work called `key` on `repository`, under way or done; `work` runs in a thread if nobody began it."""
        with self._lock:
            if (repository, key) not in self._under_way:
                self._under_way[repository, key] = self.threads.submit(work)
            return self._under_way[repository, key]

    def close(self) -> None:
        """Wait for what runs, drop what waits, end the compilers."""
        self.threads.shutdown(cancel_futures=True)
        for compiler in self._compilers.values():
            compiler.close()
        self.files.close()


class Workshop:
    """Opened by the first image and closed after the last, so that nothing outlives a bake.

    Images that are baked at once share it: together they use the machine once, and a layer that two of them want is made
    once.
    """

    def __init__(self, settings: Settings) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._lock = threading.Lock()
        self._visitors = 0
        self._workbench: Workbench | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[Workbench]:
        """Give the workbench for the time of one image."""
        with self._lock:
            if self._workbench is None:
                self._workbench = Workbench(self._settings)
            workbench = self._workbench
            self._visitors += 1
        try:
            yield workbench
        finally:
            with self._lock:
                self._visitors -= 1
                if self._visitors == 0:
                    workbench.close()
                    self._workbench = None
