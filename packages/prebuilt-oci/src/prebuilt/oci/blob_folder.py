"""A folder of blobs, each a file that is named by its digest. Files appear whole, by rename, and are never changed.

They are on the disk when they have been stored: an index that names them may follow.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from prebuilt.core.descriptor import Descriptor, check_digest
from prebuilt.core.errors import DigestMismatchError, RegistryError
from prebuilt.core.storage import atomic_file, storage_errors, sync_folder
from prebuilt.oci.repository import CHUNK_BYTES, Advance

_ABANDONED_AFTER_S = 24 * 3600  # no push takes this long
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}
_REMEDY = "delete this file and deploy again: what is missing is made anew"


@dataclass(frozen=True, slots=True)
class BlobFolder:
    """Blobs below `folder`, ``sha256/<hex>``. Threads and processes may use it at once."""

    folder: Path

    def path(self, digest: str) -> Path:
        """Return where the blob is, or would be."""
        return self.folder / check_digest(digest).replace(":", "/")

    def size(self, digest: str) -> int | None:
        """Return the size of the file in bytes; None if there is none."""
        path = self.path(digest)
        with storage_errors("look for a blob", path):
            try:
                return path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def has(self, descriptor: Descriptor) -> bool:
        """Return whether there is a file of the right size. What is in it is checked when it is read."""
        return self.size(descriptor.digest) == descriptor.size

    @contextlib.contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Give the blob in chunks; the last one comes only after size and digest were checked.

        Raises:
            RegistryError: It is not there.
            DigestMismatchError: It is damaged; also while chunks are taken.
        """
        path = self.path(descriptor.digest)
        with contextlib.ExitStack() as stack:
            with storage_errors("open a blob", path):
                try:
                    file = stack.enter_context(path.open("rb"))
                except (FileNotFoundError, NotADirectoryError) as error:
                    reason = "the image layout does not have it"
                    raise RegistryError("read a blob", at=str(path), reason=reason, code="BLOB_UNKNOWN") from error
                size = os.fstat(file.fileno()).st_size
            if size != descriptor.size:
                expected, actual = f"{descriptor.size} bytes", f"{size} bytes"
                raise DigestMismatchError("read a blob", at=str(path), expected=expected, actual=actual, remedy=_REMEDY)
            yield _verified(file, path, descriptor.digest)

    def put(self, descriptor: Descriptor, source: Callable[[], BinaryIO], advance: Advance = lambda _: None) -> None:
        """Store the blob, unless it is there undamaged.

        Raises:
            DigestMismatchError: `source` gave something else; nothing was stored.
            StorageError: The disk is full or the folder not writable.
        """
        if self.has(descriptor) and self._is_undamaged(descriptor):
            return
        path = self.path(descriptor.digest)
        seen, size = hashlib.sha256(), 0
        with source() as stream, atomic_file(path, is_durable=True) as file:
            while chunk := stream.read(CHUNK_BYTES):
                seen.update(chunk)
                file.write(chunk)
                size += len(chunk)
                advance(len(chunk))
            actual = f"sha256:{seen.hexdigest()}"
            if (actual, size) != (descriptor.digest, descriptor.size):
                expected = f"{descriptor.digest} of {descriptor.size} bytes"
                raise DigestMismatchError(
                    "store a blob", at=str(path), expected=expected, actual=f"{actual} of {size} bytes"
                )

    def link(self, descriptor: Descriptor, other: BlobFolder) -> bool:
        """Take the blob from another folder, by hard link if that can be, else by copy; return whether it is here now.

        Raises:
            StorageError: The disk is full or the folder not writable.
            DigestMismatchError: It had to be copied, and is damaged over there.
        """
        if self.has(descriptor):
            return True
        if not other.has(descriptor):
            return False
        theirs = other.path(descriptor.digest)
        try:
            self._link(theirs, self.path(descriptor.digest))
        except OSError as error:
            if error.errno not in _NO_LINK:
                with storage_errors("link a blob", theirs):
                    raise
            self.put(descriptor, lambda: theirs.open("rb"))
        return True

    def discard(self, digest: str) -> None:
        """Remove the blob if it is there."""
        path = self.path(digest)
        with storage_errors("remove a damaged blob", path):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed processes left half-written a day ago or longer."""
        with storage_errors("tidy up", self.folder), contextlib.suppress(FileNotFoundError, PermissionError):
            for path in (self.folder / "sha256").glob(".*"):
                with contextlib.suppress(FileNotFoundError):  # another process tidies up, too
                    if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                        path.unlink()

    def _is_undamaged(self, descriptor: Descriptor) -> bool:
        try:
            with self.open(descriptor) as chunks:
                for _ in chunks:
                    pass
        except DigestMismatchError:
            return False
        return True

    @staticmethod
    def _link(theirs: Path, ours: Path) -> None:
        ours.parent.mkdir(parents=True, exist_ok=True)
        name = ours.with_name(f".{secrets.token_hex(8)}.link")
        os.link(theirs, name)
        try:
            name.replace(ours)  # not linked in place: a damaged file may be there
            sync_folder(ours.parent)
        finally:
            name.unlink(missing_ok=True)  # still there if both names were of one file already


def _verified(file: BinaryIO, path: Path, digest: str) -> Iterator[bytes]:
    seen, held = hashlib.sha256(), b""
    while True:
        with storage_errors("read a blob", path):
            chunk = file.read(CHUNK_BYTES)
        if not chunk:
            break
        seen.update(chunk)
        if held:
            yield held
        held = chunk
    actual = f"sha256:{seen.hexdigest()}"
    if actual != digest:
        raise DigestMismatchError("read a blob", at=str(path), expected=digest, actual=actual, remedy=_REMEDY)
    if held:
        yield held
