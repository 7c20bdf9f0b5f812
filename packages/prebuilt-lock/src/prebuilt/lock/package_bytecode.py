"""Which files of a package get bytecode, and the bytecode as contents of a tree."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future
from typing import BinaryIO

from prebuilt.core.errors import CancelledError
from prebuilt.core.tree import Content, Entry, FileEntry
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.install_target import InstallTarget

_TEST_FOLDERS = {"test", "tests"}
_CACHE = "__pycache__"
_HEADER_BYTES = 16
_UNCHECKED_HASH = (1).to_bytes(4, "little")
_NO_HASH = bytes(8)


def wants_bytecode(path: str, target: InstallTarget) -> bool:
    """Return whether the file at `path` (relative to the prefix) gets bytecode: it can be imported, and is no test.

    Half of a package's bytecode is that of its tests, which nobody imports in a task.
    """
    if not path.endswith(".py") or not path.startswith(f"{target.library}/"):
        return False
    return _TEST_FOLDERS.isdisjoint(path.split("/")[:-1])


def with_bytecode(entries: Iterable[Entry], target: InstallTarget, compiler: BytecodeCompiler | None) -> list[Entry]:
    """Return `entries`, sorted by path, with the bytecode of their sources.

    Bytecode that a package brings is bound to its source's time, which does not survive, so it is rebound or left out; that
    of tests and of other Pythons is left out. Without a compiler nothing is added to what packages bring.
    """
    files = {target.in_prefix(entry.path): entry for entry in entries}
    result: dict[str, Entry] = {}
    for path, entry in files.items():
        source = _source_of(path)
        if source not in files or not isinstance(entry, FileEntry):
            result[path] = entry
        elif path == _cached(source, target) and wants_bytecode(source, target):
            result[path] = FileEntry(path=entry.path, content=_ReboundContent(entry.content))
    if compiler is not None:
        for path, entry in files.items():
            cached = _cached(path, target)
            if isinstance(entry, FileEntry) and cached not in result and wants_bytecode(path, target):
                content = _CompiledContent(entry.content, f"{target.prefix}/{path}", compiler)
                result[cached] = FileEntry(path=target.in_tree(cached), content=content)
    return [entry for _, entry in sorted(result.items())]


def _cached(source: str, target: InstallTarget) -> str:
    """Return where the bytecode of `source` belongs.

    Source: PEP 3147
    """
    folder, name = posixpath.split(source)
    tag = f"cpython-{target.python_xy.replace('.', '')}"
    return posixpath.join(folder, _CACHE, f"{name.removesuffix('.py')}.{tag}.pyc")


def _source_of(path: str) -> str:
    """Return the source of the bytecode at `path`; an empty string if that is no bytecode in its cache folder."""
    folder, name = posixpath.split(path)
    parent, cache = posixpath.split(folder)
    if cache != _CACHE or not name.endswith(".pyc"):
        return ""
    return posixpath.join(parent, name.split(".")[0] + ".py")


class _ReboundContent:
    """A package's own bytecode, with a header that does not depend on its source's time.

    The hash in it is not that of the source: nothing reads it, unless Python is told ``--check-hash-based-pycs always``, and
    then it compiles anew.
    """

    __slots__ = ("_content",)

    def __init__(self, content: Content) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return self._content.size

    def open(self) -> BinaryIO:
        with self._content.open() as stream:
            data = stream.read()
        is_bound_to_time = len(data) >= _HEADER_BYTES and data[4:8] == bytes(4)
        rebound = data[:4] + _UNCHECKED_HASH + _NO_HASH + data[_HEADER_BYTES:]
        return io.BytesIO(rebound if is_bound_to_time else data)

    def prefetch(self) -> None:
        pass


class _CompiledContent:
    """Bytecode that is compiled when it is wanted and forgotten once it was read. Empty where the source does not compile.

    An empty file is no bytecode to Python: it reads the source instead.
    """

    __slots__ = ("_compiler", "_path", "_pending", "_size", "_source")

    def __init__(self, source: Content, path: str, compiler: BytecodeCompiler) -> None:
        self._source, self._path, self._compiler = source, path, compiler
        self._pending: Future[bytes] | None = None
        self._size: int | None = None

    @property
    def size(self) -> int:
        if self._size is None:
            self._size = len(self._result())
        return self._size

    def open(self) -> BinaryIO:
        data = self._result()
        self._size, self._pending = len(data), None
        return io.BytesIO(data)

    def prefetch(self) -> None:
        self._started()

    def _result(self) -> bytes:
        try:
            return self._started().result()
        except FutureCancelledError as error:
            raise CancelledError(f"compile {self._path}", reason="the compiler was closed") from error

    def _started(self) -> Future[bytes]:
        if self._pending is None:
            with self._source.open() as stream:
                self._pending = self._compiler.submit(stream.read(), self._path)
        return self._pending
