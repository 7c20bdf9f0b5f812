"""Scratch folders: where a run writes, removed when it is over; those of killed runs are removed by later ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prebuilt.core.storage import storage_errors
from prebuilt.oci.containers.lock_file import taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """The folder of one run and the lock that says it is in use.

    Attributes:
        folder: Holds ``upper``, ``work`` and ``root``, where an overlay mount writes, works and is; and an empty folder ``lower``.
        lock_fd: While any process has it open, the folder is left alone.
    """

    folder: Path
    lock_fd: int

    def remove(self) -> None:
        """Remove the folder and give the lock back."""
        try:
            remove_tree(self.folder)
            _lock_path(self.folder).unlink(missing_ok=True)
        finally:
            os.close(self.lock_fd)


def new_scratch(runs: Path) -> Scratch:
    """Make the folder of a run below `runs`.

    Raises:
        StorageError: The disk is full or not writable.
    """
    with storage_errors("make a scratch folder", runs):
        runs.mkdir(parents=True, exist_ok=True)
        folder, lock_fd = _lock_new(runs)
        try:
            _fill(folder)
        except BaseException:
            os.close(lock_fd)
            raise
        return Scratch(folder=folder, lock_fd=lock_fd)


def _lock_new(runs: Path) -> tuple[Path, int]:
    """Return the path of a folder, which is not made yet, and the lock on it."""
    while True:
        folder = runs / secrets.token_hex(8)
        lock_fd = os.open(_lock_path(folder), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        if _lock_path(folder).exists():
            return folder, lock_fd
        os.close(lock_fd)  # somebody who removes leftovers saw it before it was locked


def _fill(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name in ("upper", "work", "root", "lower"):
        (folder / name).mkdir()
    (folder / "upper").chmod(0o755)  # it is the mode of the container's root, whatever this process's umask


def remove_leftovers(runs: Path) -> None:
    """Remove the scratch folders of runs that were killed."""
    for lock in runs.glob("*.lock"):
        with taken(lock) as is_taken:
            if is_taken:
                remove_tree(lock.with_suffix(""))
                lock.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder of this user's, also where folders in it are closed to their owner, as overlay mounts leave them.

    Raises:
        StorageError: Something in it cannot be removed.
    """

    def open_and_retry(
        function: Callable[..., Any], path: str, error: tuple[type[BaseException], BaseException, Any]
    ) -> None:
        if not isinstance(error[1], PermissionError):
            raise error[1]
        for closed in (Path(path).parent, Path(path)):
            if closed.is_dir() and not closed.is_symlink():
                closed.chmod(0o700)
        if function in {os.scandir, os.open, os.listdir}:
            shutil.rmtree(path, onerror=open_and_retry)
        else:
            function(path)

    with storage_errors("remove a folder", folder), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder, onerror=open_and_retry)


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
