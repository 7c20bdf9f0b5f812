"""The file tree of an image, as its layers make it: names, links and a few facts about contents, but no contents."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO

from prebuilt.oci.layer import LayerMember

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_LINKS = 40  # what Linux follows before it gives up

Inspect = Callable[[str, IO[bytes]], frozenset[str]]
"""Told path and contents of a regular file; returns facts to remember, often none."""


@dataclass(slots=True)
class Node:
    """One file, link or folder.

    Attributes:
        children: Of a folder; None for everything else.
        target: Of a symbolic link; None for everything else.
        is_executable: Whether a regular file is, for anybody.
        facts: What was found in a regular file.
    """

    children: dict[str, Node] | None = None
    target: str | None = None
    is_executable: bool = False
    facts: frozenset[str] = frozenset()

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.children is None and self.target is None


@dataclass(slots=True)
class LayerListing:
    """What one layer adds and takes away, in its order: paths without a slash in front."""

    added: list[tuple[str, Node]] = field(default_factory=list)
    hard_links: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, members: Iterable[LayerMember], inspect: Inspect) -> LayerListing:
        """Read a layer once.

        Source: https://github.com/opencontainers/image-spec/blob/main/layer.md
        """
        listing = cls()
        for info, content in members:
            path = _clean(info.name)
            folder, _, name = path.rpartition("/")
            if name == _OPAQUE:
                listing.emptied.append(folder)
            elif name.startswith(_WHITEOUT):
                listing.removed.append(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
            elif info.islnk():
                listing.hard_links.append((path, _clean(info.linkname)))
            elif path:
                facts = inspect(path, content) if content is not None else frozenset()
                listing.added.append((path, _node(info, facts)))
        return listing


def _node(info: tarfile.TarInfo, facts: frozenset[str]) -> Node:
    if info.isdir():
        return Node(children={})
    if info.issym():
        return Node(target=info.linkname)
    return Node(is_executable=bool(info.mode & 0o111), facts=facts)


class ImageTree:
    """The tree that layers have made so far."""

    def __init__(self) -> None:
        """Start with an empty root."""
        self._root = Node(children={})

    def apply(self, layer: LayerListing) -> None:
        """Put a layer on top. What it takes away is of the layers below, never of itself."""
        for path in layer.emptied:
            node = self._lookup(path, is_last_followed=True)
            if node is not None and node.children is not None:
                node.children.clear()
        for path in layer.removed:
            parent, name = self._parent(path)
            if parent is not None and parent.children is not None:
                parent.children.pop(name, None)
        for path, node in layer.added:
            self._put(path, node)
        for path, target in layer.hard_links:
            node = self._lookup(target, is_last_followed=False)
            if node is not None:
                self._put(path, node)

    def find(self, path: str) -> Node | None:
        """Return what an absolute path leads to, through symbolic links; None if it leads nowhere."""
        return self._lookup(_clean(path), is_last_followed=True)

    def real_path(self, path: str) -> str | None:
        """Return the absolute path of :meth:`find` without a link in it."""
        parts = self._walk(_clean(path), is_last_followed=True)
        return None if parts is None else "/" + "/".join(name for name, _ in parts)

    def names(self, folder: str) -> Iterator[str]:
        """Yield what is in a folder; nothing if there is none."""
        node = self.find(folder)
        yield from (node.children or ()) if node is not None else ()

    def _put(self, path: str, node: Node) -> None:
        parent = self._ensure_folder(path.rpartition("/")[0])
        name = path.rpartition("/")[2]
        before = parent.children.get(name) if parent.children is not None else None
        if before is not None and before.children is not None and node.children is not None:
            return  # a folder that is there keeps what is in it
        if parent.children is not None:
            parent.children[name] = node

    def _ensure_folder(self, path: str) -> Node:
        """Return the folder at `path`, through links, as extracting does; made, with its parents, where it is not there."""
        found = self._lookup(path, is_last_followed=True)
        if found is not None and found.children is not None:
            return found
        parent = self._ensure_folder(path.rpartition("/")[0])
        folder = Node(children={})
        if parent.children is not None:
            parent.children[path.rpartition("/")[2]] = folder
        return folder

    def _parent(self, path: str) -> tuple[Node | None, str]:
        folder, _, name = path.rpartition("/")
        return self._lookup(folder, is_last_followed=True), name

    def _lookup(self, path: str, *, is_last_followed: bool) -> Node | None:
        parts = self._walk(path, is_last_followed=is_last_followed)
        if parts is None:
            return None
        return parts[-1][1] if parts else self._root

    def _walk(self, path: str, *, is_last_followed: bool) -> list[tuple[str, Node]] | None:
        """Return names and nodes on the way to `path`, links resolved within the image; None if it leads nowhere."""
        waiting = [part for part in reversed(path.split("/")) if part not in {"", "."}]
        way: list[tuple[str, Node]] = []
        links = 0
        while waiting:
            name = waiting.pop()
            if name == "..":
                way = way[:-1]  # above the root is the root
                continue
            here = way[-1][1] if way else self._root
            node = here.children.get(name) if here.children is not None else None
            if node is None:
                return None
            if node.target is None or (not waiting and not is_last_followed):
                way.append((name, node))
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            if node.target.startswith("/"):
                way = []
            waiting.extend(part for part in reversed(node.target.split("/")) if part not in {"", "."})
        return way


def _clean(path: str) -> str:
    """Return a path without slashes at its ends, without ``.``, and without a way out of the image."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)
