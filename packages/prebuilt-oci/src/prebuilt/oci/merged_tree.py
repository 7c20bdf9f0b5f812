"""The entries of several packages as one tree: each path once, each folder once, in the order in which a layer has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prebuilt.core.errors import InvalidValueError
from prebuilt.core.tree import DirectoryEntry, Entry, FileEntry, HardlinkEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedTree:
    """What a layer holds.

    Attributes:
        entries: By path, parents first; then the hard links, by path, since a link must follow what it links to.
        overlaps: Paths that came more than once, sorted; folders may, and are not named.
    """

    entries: tuple[Entry, ...]
    overlaps: tuple[str, ...]


def merge_entries(entries: Sequence[Entry]) -> MergedTree:
    """Return the tree of `entries`. Of those with equal paths the last one wins; folders are made for all parents.

    A hard link names the nearest entry of its target's path that comes before it, as in a tar; if there is none before it, the
    first one after it. If that entry lost its path to another one, the link becomes a file of its own.

    Raises:
        InvalidValueError: A path is a folder and also something else, or a hard link does not lead to a file.
    """
    winners, overlaps = _winners(entries)
    folders = _folders(entries, winners)
    others = [
        entries[index] for index in winners.values() if not isinstance(entries[index], HardlinkEntry | DirectoryEntry)
    ]
    links = _resolved_links(entries, winners)
    others += [link for link in links if isinstance(link, FileEntry)]
    others += [DirectoryEntry(path=folder) for folder in folders]
    others.sort(key=_path)
    hardlinks = sorted((link for link in links if isinstance(link, HardlinkEntry)), key=_path)
    return MergedTree(entries=(*others, *hardlinks), overlaps=tuple(sorted(overlaps)))


def _path(entry: Entry) -> str:
    return entry.path


def _winners(entries: Sequence[Entry]) -> tuple[dict[str, int], set[str]]:
    """Return the index of the last entry for each path, and the paths that others had before."""
    winners: dict[str, int] = {}
    overlaps = set()
    for index, entry in enumerate(entries):
        before = winners.get(entry.path)
        if before is not None:
            is_folder = isinstance(entry, DirectoryEntry)
            if is_folder != isinstance(entries[before], DirectoryEntry):
                raise InvalidValueError("a tree of files", entry.path, reason="it is a folder, and also not one")
            if not is_folder:
                overlaps.add(entry.path)
        winners[entry.path] = index
    return winners, overlaps


def _folders(entries: Sequence[Entry], winners: dict[str, int]) -> set[str]:
    """Return all folders: those that are entries, and the parents of all paths."""
    folders: set[str] = set()
    for path, index in winners.items():
        folder = path if isinstance(entries[index], DirectoryEntry) else path.rpartition("/")[0]
        while folder and folder not in folders:  # one that is there has its parents there
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    for folder in folders:
        if folder in winners and not isinstance(entries[winners[folder]], DirectoryEntry):
            inside = min(path for path in winners if path.startswith(f"{folder}/"))
            raise InvalidValueError("a tree of files", folder, reason=f"it is not a folder, but {inside} is inside it")
    return folders


def _resolved_links(entries: Sequence[Entry], winners: dict[str, int]) -> list[HardlinkEntry | FileEntry]:
    """Return the hard links that won their paths: to a file that won too, or else as files of their own."""
    links = [index for index in winners.values() if isinstance(entries[index], HardlinkEntry)]
    if not links:
        return []
    positions: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        positions.setdefault(entry.path, []).append(index)
    resolved: list[HardlinkEntry | FileEntry] = []
    for index in links:
        path = entries[index].path
        target = _linked_file(entries, positions, index)
        file = entries[target]
        if not isinstance(file, FileEntry):
            raise InvalidValueError(
                "a tree of files", path, reason=f"it is a hard link to {file.path}, which is not a file"
            )
        if winners[file.path] == target:
            resolved.append(HardlinkEntry(path=path, target=file.path))
        else:
            resolved.append(FileEntry(path=path, content=file.content, executable=file.executable))
    return resolved


def _linked_file(entries: Sequence[Entry], positions: dict[str, list[int]], link: int) -> int:
    """Return the index of what a hard link leads to, through other hard links."""
    seen = {link}
    entry, index = entries[link], link
    while isinstance(entry, HardlinkEntry):
        there = positions.get(entry.target)
        if there is None:
            raise InvalidValueError(
                "a tree of files", entry.path, reason=f"it is a hard link to {entry.target}, which is not there"
            )
        index = max((position for position in there if position < index), default=there[0])
        if index in seen:
            raise InvalidValueError("a tree of files", entry.path, reason="it is a hard link that leads to itself")
        seen.add(index)
        entry = entries[index]
    return index
