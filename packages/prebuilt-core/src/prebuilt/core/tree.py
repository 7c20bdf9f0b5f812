"""The files of a package, before they are anywhere: what installers yield and layer writers consume."""

from __future__ import annotations

import io
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from prebuilt.core.errors import InvalidValueError


def check_tree_path(path: str) -> str:
    """Return `path` if it is relative, normalised, and stays inside its root."""
    if (
        not path
        or path.startswith("/")
        or posixpath.normpath(path) != path
        or path.split("/", maxsplit=1)[0] in {"..", "."}
    ):
        raise InvalidValueError("a path in a tree", path, reason="expected a normalised path relative to the root")
    return path


class Content(Protocol):
    """The bytes of one file. `size` is in bytes and may block until it is known (bytecode is compiled in the background)."""

    @property
    def size(self) -> int:
        """Bytes that `open` will give."""

    def open(self) -> BinaryIO:
        """Return a new stream of exactly `size` bytes; the caller closes it."""

    def prefetch(self) -> None:
        """Start whatever work `size` and `open` would wait for; called a little ahead of them, from the same thread."""


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Content that is already in memory; for small files only."""

    data: bytes

    @property
    def size(self) -> int:
        """Length of the data in bytes."""
        return len(self.data)

    def open(self) -> BinaryIO:
        """Return a stream of the data."""
        return io.BytesIO(self.data)

    def prefetch(self) -> None:
        """Nothing to start."""


@dataclass(frozen=True, slots=True)
class PathContent:
    """Content of a file on disk, which must not change while it is used."""

    path: Path

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        return self.path.open("rb")

    def prefetch(self) -> None:
        """Nothing to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A regular file. Its mode is 0o755 if `executable`, else 0o644; nothing else of a mode survives."""

    path: str
    content: Content
    executable: bool = False

    def __post_init__(self) -> None:
        """Check the path."""
        check_tree_path(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SymlinkEntry:
    """A symbolic link; `target` is written as it is."""

    path: str
    target: str

    def __post_init__(self) -> None:
        """Check the path; a target may point anywhere."""
        check_tree_path(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardlinkEntry:
    """Another name for a file of the same tree: `target` is that file's path in the tree."""

    path: str
    target: str

    def __post_init__(self) -> None:
        """Check both paths."""
        check_tree_path(self.path)
        check_tree_path(self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """An empty directory, mode 0o755. Parents of other entries need none: writers make them."""

    path: str

    def __post_init__(self) -> None:
        """Check the path."""
        check_tree_path(self.path)


Entry: TypeAlias = FileEntry | SymlinkEntry | HardlinkEntry | DirectoryEntry
