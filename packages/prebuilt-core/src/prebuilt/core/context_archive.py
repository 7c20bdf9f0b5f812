"""The archive in which a Dockerfile and its context travel to a builder: the same files give the same bytes."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from prebuilt.core.errors import InvalidValueError, StorageError
from prebuilt.core.storage import storage_errors
from prebuilt.core.tree import BytesContent, Content, check_tree_path

DOCKERFILE = "Dockerfile"

_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = tarfile.BLOCKSIZE


def context_archive(dockerfile: str, context: Mapping[str, Content]) -> Iterator[bytes]:
    """Yield a tar archive of `context`, by POSIX name, with `dockerfile` in it; one chunk is in memory at a time.

    Order, times, owners and modes are always the same, so a builder's cache sees the files and nothing else.

    Raises:
        InvalidValueError: A name leaves the context.
        StorageError: A file cannot be read, or changed meanwhile.
    """
    files = {**context, DOCKERFILE: BytesContent(dockerfile.encode())}
    folders = {parent for name in files for parent in _parents(check_tree_path(name))}
    for name in sorted(folders | files.keys()):
        if name in files:
            yield from _file(name, files[name])
        else:
            yield _header(name, tarfile.DIRTYPE, mode=0o755, size_bytes=0)
    yield bytes(2 * _BLOCK_BYTES)


def published_context(context_files: Mapping[str, object]) -> dict[str, Content]:
    """Return the files that ``build_and_push`` is given: ``str`` or ``bytes`` by POSIX name.

    Raises:
        InvalidValueError: One is neither.
    """
    return {name: BytesContent(_bytes(name, data)) for name, data in context_files.items()}


def _bytes(name: str, data: object) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise InvalidValueError(f"the context file {name}", type(data).__name__, reason="expected str or bytes")


def _parents(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name


def _file(name: str, content: Content) -> Iterator[bytes]:
    tried = f"read {posixpath.basename(name)} for a build context"
    with storage_errors(tried, Path(name)):
        size_bytes = left = content.size
        yield _header(name, tarfile.REGTYPE, mode=0o644, size_bytes=size_bytes)
        with content.open() as stream:
            while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk
    if left:
        raise StorageError(tried, at=name, reason=f"it is {left} bytes shorter than it was")
    yield bytes(-size_bytes % _BLOCK_BYTES)


def _header(name: str, kind: bytes, *, mode: int, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size_bytes
    return info.tobuf(tarfile.PAX_FORMAT)
