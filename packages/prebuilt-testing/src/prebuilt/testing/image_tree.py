"""The file tree of an image: the union of its layers, with what tests compare; and that of a folder, in the same form."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

NodeKind = Literal["file", "symlink", "directory", "hardlink", "other"]

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """What is at one path.

    Attributes:
        digest: ``sha256:…`` of a file's bytes; empty for everything else.
        target: Of a link.
        executable: Whether a file's owner may run it.
        layer: Index of the layer that brought it; 0 for a folder on disk.
    """

    kind: NodeKind
    digest: str = ""
    target: str = ""
    executable: bool = False
    layer: int = 0

    @property
    def content(self) -> tuple[str, str, str, bool]:
        """What makes two nodes the same, whichever layer they came from."""
        return (self.kind, self.digest, self.target, self.executable)


Tree = dict[str, TreeNode]
"""Nodes by path, relative to the root, without a slash at the end."""


def node_of(member: tarfile.TarInfo, content: IO[bytes] | None, layer: int) -> TreeNode:
    """Return what a member of a layer's tar puts there; its content is read."""
    if content is not None:
        digest = _digest(content)
        return TreeNode(kind="file", digest=digest, executable=bool(member.mode & stat.S_IXUSR), layer=layer)
    if member.issym():
        return TreeNode(kind="symlink", target=member.linkname, layer=layer)
    if member.islnk():
        return TreeNode(kind="hardlink", target=member.linkname, layer=layer)
    return TreeNode(kind="directory" if member.isdir() else "other", layer=layer)


def put_layer(tree: Tree, nodes: Mapping[str, TreeNode]) -> None:
    """Lay the nodes of one layer over `tree`, as runtimes do.

    Source: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
    """
    for path in nodes:
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            _remove_below(tree, folder)
        elif name.startswith(_WHITEOUT):
            hidden = "/".join(filter(None, (folder, name.removeprefix(_WHITEOUT))))
            _remove_below(tree, hidden)
            tree.pop(hidden, None)
    for path, node in nodes.items():
        if not path.rpartition("/")[2].startswith(_WHITEOUT):
            if node.kind != "directory":
                _remove_below(tree, path)
            tree[path] = _resolved(node, tree)


def folder_tree(folder: Path) -> Tree:
    """Return the tree of a folder on disk. Hard links count as files."""
    return {path.relative_to(folder).as_posix(): _node_on_disk(path) for path in sorted(_walk(folder))}


def subtree(tree: Mapping[str, TreeNode], folder: str) -> Tree:
    """Return what `tree` has below `folder`, by path relative to it."""
    prefix = f"{folder.strip('/')}/"
    return {path.removeprefix(prefix): node for path, node in tree.items() if path.startswith(prefix)}


def tree_differences(one: Mapping[str, TreeNode], other: Mapping[str, TreeNode]) -> list[str]:
    """Return one line for each path at which two trees differ, by path; none if they are equal. Layers do not matter."""
    lines = []
    for path in sorted({*one, *other}):
        if path not in one:
            lines.append(f"{path}: only in the second: {_words(other[path])}")
        elif path not in other:
            lines.append(f"{path}: only in the first: {_words(one[path])}")
        elif one[path].content != other[path].content:
            lines.append(f"{path}: {_words(one[path])} in the first, {_words(other[path])} in the second")
    return lines


def _words(node: TreeNode) -> str:
    detail = node.digest[:19] or node.target
    return " ".join(filter(None, ("executable" if node.executable else "", node.kind, detail)))


def _remove_below(tree: Tree, folder: str) -> None:
    for path in [path for path in tree if path.startswith(f"{folder}/")]:
        del tree[path]


def _resolved(node: TreeNode, tree: Tree) -> TreeNode:
    """Return the file that a hard link is, so that trees compare alike however a file was stored."""
    target = tree.get(node.target) if node.kind == "hardlink" else None
    if target is None or target.kind != "file":
        return node
    return TreeNode(kind="file", digest=target.digest, executable=target.executable, layer=node.layer)


def _walk(folder: Path) -> Iterable[Path]:
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in (*folders, *files))


def _node_on_disk(path: Path) -> TreeNode:
    if path.is_symlink():
        return TreeNode(kind="symlink", target=str(path.readlink()))
    if path.is_dir():
        return TreeNode(kind="directory")
    with path.open("rb") as file:
        return TreeNode(kind="file", digest=_digest(file), executable=bool(path.stat().st_mode & stat.S_IXUSR))


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
