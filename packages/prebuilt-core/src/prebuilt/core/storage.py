"""Local files: where the cache is, and writing that leaves nothing half-made."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from prebuilt.core.errors import StorageError
from prebuilt.core.home import home_folder
from prebuilt.core.settings import Settings

_ELSEWHERE = "set METAFLOW_PREBUILT_CACHE_DIR (for images METAFLOW_PREBUILT_LAYOUT, if that is set)"
_TEMPORARY_ELSEWHERE = "set TMPDIR"
_ABANDONED_AFTER_S = 24 * 3600
_REMEDIES = {
    errno.ENOSPC: "free some space, or {elsewhere} to a larger disk",
    errno.EDQUOT: "free some of your quota, or {elsewhere} to another disk",
    errno.EACCES: "make it writable, or {elsewhere} to a folder that is",
    errno.EPERM: "make it writable, or {elsewhere} to a folder that is",
    errno.EROFS: "{elsewhere} to a folder that is writable",
    errno.ENOTDIR: "{elsewhere} to a folder",
    errno.EEXIST: "{elsewhere} to a folder",
}


def cache_dir(settings: Settings) -> Path:
    """Return the cache folder: ``METAFLOW_PREBUILT_CACHE_DIR``, else the platform's. It may not exist yet.

    Source: XDG Base Directory specification 0.8; ~/Library/Caches on macOS.
    """
    configured = settings.get("PREBUILT_CACHE_DIR")
    if configured:
        return Path(configured).expanduser().absolute()
    if sys.platform == "darwin":
        return home_folder(os.environ) / "Library" / "Caches" / "metaflow-prebuilt"
    return Path(os.environ.get("XDG_CACHE_HOME") or home_folder(os.environ) / ".cache") / "metaflow-prebuilt"


@contextlib.contextmanager
def storage_errors(tried: str, path: Path, *, is_temporary: bool = False) -> Iterator[None]:
    """Turn an :class:`OSError` in the body into a :class:`StorageError` that says what to do.

    Args:
        tried: What is done, as an infinitive.
        path: Where.
        is_temporary: Whether that is among the temporary files, whose place has a setting of its own.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        elsewhere = _TEMPORARY_ELSEWHERE if is_temporary else _ELSEWHERE
        remedy = _REMEDIES.get(error.errno or 0, "").format(elsewhere=elsewhere)
        raise StorageError(tried, at=str(path), reason=reason, remedy=remedy) from error


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Give a new folder among the temporary files, for this user only; it is gone afterwards.

    Raises:
        StorageError: The disk is full, or no folder for temporary files is writable.
    """
    import tempfile  # as below

    try:
        place = Path(tempfile.gettempdir())  # the first of several that a file can be written to
    except OSError as error:
        raise StorageError(
            "find a folder for temporary files",
            reason=error.strerror or str(error),
            remedy=f"free some space, or {_TEMPORARY_ELSEWHERE} to a folder that is writable",
        ) from error
    with storage_errors("make a temporary folder", place, is_temporary=True):
        folder = tempfile.TemporaryDirectory(prefix=prefix)
    with folder as name:
        yield Path(name)


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


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed a day ago or longer left half-made in `folder`: no download and no layer takes that long."""
    import shutil  # as above

    oldest = time.time() - _ABANDONED_AFTER_S
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):  # another process tidies up, too; or it is another user's
            if path.stat().st_mtime >= oldest:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


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
