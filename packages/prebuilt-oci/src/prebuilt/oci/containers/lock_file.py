"""Lock files: one process, and one thread of it, does a thing at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from prebuilt.core.storage import storage_errors


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file during the body; wait for it first. The file stays: removing it would let two processes hold it.

    Raises:
        StorageError: The file cannot be made.
    """
    with storage_errors("lock a file", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with storage_errors("lock a file", path):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def taken(path: Path) -> Iterator[bool]:
    """Say whether nobody holds a lock file; hold it during the body if so. It is not waited for."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):  # removed just now; or of another user, who shares the cache
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)
