"""Writes a tree of entries into a folder."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from prebuilt.core.storage import storage_errors
from prebuilt.core.tree import DirectoryEntry, Entry, FileEntry, HardlinkEntry, SymlinkEntry

_AHEAD = 64  # bytecode is compiled in other processes: this many files are asked for before the first is waited for
_CHUNK_BYTES = 1 << 20


def write_tree(entries: Iterable[Entry], root: Path) -> None:
    """Write `entries` below the folder `root`, files with fixed modes. What is at an entry's path is replaced, not written into.

    Raises:
        StorageError: The disk is full or not writable.
    """
    folders: set[Path] = set()
    ahead: deque[Entry] = deque()
    for entry in entries:
        if isinstance(entry, FileEntry):
            entry.content.prefetch()
        ahead.append(entry)
        if len(ahead) > _AHEAD:
            _write(ahead.popleft(), root, folders)
    for entry in ahead:
        _write(entry, root, folders)


def _write(entry: Entry, root: Path, folders: set[Path]) -> None:
    path = root / entry.path
    folder = path if isinstance(entry, DirectoryEntry) else path.parent
    with storage_errors(f"write {entry.path}", root):
        if folder not in folders:
            folder.mkdir(parents=True, exist_ok=True)
            folders.add(folder)
        if isinstance(entry, DirectoryEntry):
            return
        path.unlink(missing_ok=True)
        if isinstance(entry, SymlinkEntry):
            path.symlink_to(entry.target)
        elif isinstance(entry, HardlinkEntry):
            path.hardlink_to(root / entry.target)
        else:
            _write_file(entry, path)


def _write_file(entry: FileEntry, path: Path) -> None:
    with entry.content.open() as source, path.open("xb") as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)
        os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)
