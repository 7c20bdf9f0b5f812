"""Local files: where the cache is, and writing that leaves nothing half-made."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from prebuilt.core.errors import StorageError
from prebuilt.core.settings import Settings

_ELSEWHERE = "set METAFLOW_PREBUILT_CACHE_DIR (for images METAFLOW_PREBUILT_LAYOUT, if that is set)"
_REMEDIES = {
    errno.ENOSPC: f"free some space, or {_ELSEWHERE} to a larger disk",
    errno.EDQUOT: f"free some of your quota, or {_ELSEWHERE} to another disk",
    errno.EACCES: f"make it writable, or {_ELSEWHERE} to a folder that is",
    errno.EPERM: f"make it writable, or {_ELSEWHERE} to a folder that is",
    errno.EROFS: f"{_ELSEWHERE} to a folder that is writable",
    errno.ENOTDIR: f"{_ELSEWHERE} to a folder",
    errno.EEXIST: f"{_ELSEWHERE} to a folder",
}


def cache_dir(settings: Settings) -> Path:
    """Return the cache folder: ``METAFLOW_PREBUILT_CACHE_DIR``, else the platform's. It may not exist yet.

    Source: XDG Base Directory specification 0.8; ~/Library/Caches on macOS.
    """
    configured = settings.get("PREBUILT_CACHE_DIR")
    if configured:
        return Path(configured).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "metaflow-prebuilt"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaflow-prebuilt"


@contextlib.contextmanager
def storage_errors(tried: str, path: Path) -> Iterator[None]:
    """Turn an :class:`OSError` in the body into a :class:`StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(tried, at=str(path), reason=reason, remedy=_REMEDIES.get(error.errno or 0, "")) from error


@contextlib.contextmanager
def atomic_file(path: Path, *, is_durable: bool = False) -> Iterator[BinaryIO]:
    """Give a new file to write; rename it to `path` if the body succeeds, remove it if not.

    One that is durable outlives a loss of power: it is on the disk before it has its name, and the name is when this returns. That
    takes milliseconds, which a cache need not spend.

    Raises:
        StorageError: The disk is full or the folder is not writable.
    """
    import tempfile  # a second deploy, which writes nothing, is spared what it loads

    with storage_errors(f"write {path.name}", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                os.fchmod(file.fileno(), 0o644)  # mkstemp makes 0600, which would keep others out of a shared cache
                if is_durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(name, path)  # noqa: PTH105 - a name, not a Path
            if is_durable:
                sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108 - a name, not a Path
            raise


def write_atomically(path: Path, data: bytes, *, is_durable: bool = False) -> None:
    """Write a whole file by rename; see :func:`atomic_file`."""
    with atomic_file(path, is_durable=is_durable) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_if_there(path: Path) -> bytes | None:
    """Return the bytes of the file, or None if it is not there."""
    with storage_errors(f"read {path.name}", path.parent):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
