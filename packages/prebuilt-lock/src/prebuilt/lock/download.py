"""One package file on its way to this machine: hashed while it is written, never used unless it is what the lock says."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, final

from prebuilt.core.errors import DigestMismatchError, StorageError, without_credentials
from prebuilt.core.lock import LockedPackage
from prebuilt.core.storage import storage_errors

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Advance = Callable[[int], None]
"""Told how many bytes more have come; a negative number when a download starts over."""

Check = Callable[[], None]
"""Called now and then; raises to stop the work."""

_PIECE_BYTES = 1 << 18
"""What is hashed and written at a time. Bytes come in records of 16 KiB, and each hash or write of one would give Python's lock away
and wait to get it back."""


class TransientError(Exception):
    """A download failed in a way that may pass.

    Attributes:
        retry_after_s: What the server asked for; None where it said nothing.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        """Keep the reason and the wait."""
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _HashedFile(io.FileIO):
    """A new file, and the hash of what was written to it. Raises :class:`StorageError` where the disk is full."""

    def __init__(self, handle: int, tried: str, path: Path) -> None:
        super().__init__(handle, "w")
        self._tried, self._path = tried, path
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: ReadableBuffer) -> int:
        with storage_errors(self._tried, self._path.parent):
            written = super().write(data)
        self._hash.update(memoryview(data)[:written])
        return written

    def start_over(self) -> None:
        with storage_errors(self._tried, self._path.parent):
            self.seek(0)
            self.truncate()
        self._hash = hashlib.sha256()


@final
class Download:
    """A temporary file that fills up. Use it as a context: the file is gone afterwards, unless it was kept."""

    def __init__(self, package: LockedPackage, folder: Path, *, advance: Advance, check: Check) -> None:
        """Make an empty file in `folder` for `package`."""
        self.package = package
        self._advance = advance
        self.check = check
        self._size, self._is_kept = 0, False
        tried = f"download {package.filename}"
        with storage_errors(tried, folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Under its own name at the end: rattler tells by it what kind of archive a file is.
            handle, name = tempfile.mkstemp(prefix=f"{package.sha256[:12]}.", suffix=f".{package.filename}", dir=folder)
        self.path = Path(name)
        self._hashed = _HashedFile(handle, tried, self.path)
        self._file = io.BufferedWriter(self._hashed, _PIECE_BYTES)

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # A full disk once more: what was not flushed is not wanted.
            with contextlib.suppress(StorageError, OSError):
                self._file.close()
        finally:
            if not self._is_kept:
                self.path.unlink(missing_ok=True)

    @property
    def size_bytes(self) -> int:
        """Bytes that have come."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append `data`.

        Raises:
            DigestMismatchError: More came than the lock says.
            StorageError: The disk is full.
        """
        self.check()
        if self._size + len(data) > self.package.size_bytes:
            raise self._mismatch(f"{self.package.size_bytes} bytes", "more")
        self._file.write(data)
        self._size += len(data)
        self._advance(len(data))

    def start_over(self) -> None:
        """Forget what has come."""
        self._file.flush()
        self._hashed.start_over()
        self._advance(-self._size)
        self._size = 0

    def verify(self) -> None:
        """Check that everything has come.

        Raises:
            DigestMismatchError: Size or hash differ from the lock.
            StorageError: The disk is full.
        """
        self._file.flush()
        if self._size != self.package.size_bytes:
            raise self._mismatch(f"{self.package.size_bytes} bytes", f"{self._size}")
        if self._hashed.sha256 != self.package.sha256:
            raise self._mismatch(f"sha256:{self.package.sha256}", f"sha256:{self._hashed.sha256}")

    def keep(self, path: Path) -> None:
        """Move the file to `path`."""
        with storage_errors(f"keep {self.package.filename}", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file.close()
            self.path.chmod(0o644)
            self.path.replace(path)
        self.path, self._is_kept = path, True

    def _mismatch(self, expected: str, actual: str) -> DigestMismatchError:
        return digest_mismatch(self.package, expected=expected, actual=actual)


def digest_mismatch(package: LockedPackage, *, expected: str, actual: str) -> DigestMismatchError:
    """Return the error that says that a package file is not the one that was locked."""
    return DigestMismatchError(
        f"download {package.filename}",
        at=without_credentials(package.url),
        expected=expected,
        actual=actual,
        remedy="ask the owner of the package index or channel why, and resolve again (METAFLOW_PREBUILT_REFRESH=1) if it is meant",
    )
