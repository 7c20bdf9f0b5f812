"""Entries of several packages become one tree."""

from __future__ import annotations

from itertools import permutations

import pytest

from prebuilt.core.errors import InvalidValueError
from prebuilt.core.tree import BytesContent, DirectoryEntry, Entry, FileEntry, HardlinkEntry, SymlinkEntry
from prebuilt.oci.merged_tree import merge_entries


def file(path: str, data: bytes = b"", *, executable: bool = False) -> FileEntry:
    """Return a small file."""
    return FileEntry(path=path, content=BytesContent(data), executable=executable)


def test_parents_come_once_and_first() -> None:
    """Folders are made for all parents, once, before what is in them; the rest is sorted by path."""
    entries = [
        file("b/c/y"),
        file("b/c/x"),
        DirectoryEntry(path="b/c"),
        DirectoryEntry(path="e/f"),
        file("b-x"),
        file("a"),
    ]
    for order in permutations(entries):
        tree = merge_entries(order)
        assert [entry.path for entry in tree.entries] == ["a", "b", "b-x", "b/c", "b/c/x", "b/c/y", "e", "e/f"]
        assert tree.overlaps == ()


def test_the_last_of_equal_paths_wins() -> None:
    """Of several entries with one path the last is kept, and the path is reported; folders may come more than once."""
    last = SymlinkEntry(path="x", target="y")
    tree = merge_entries(
        [file("x", b"1"), file("y"), file("x", b"2"), DirectoryEntry(path="d"), last, DirectoryEntry(path="d")]
    )
    assert tree.entries == (DirectoryEntry(path="d"), last, file("y"))
    assert tree.overlaps == ("x",)


@pytest.mark.parametrize(
    "entries",
    [
        [file("x"), file("x/y")],
        [file("x/y"), file("x")],
        [SymlinkEntry(path="x", target="z"), file("x/y")],
        [file("x"), DirectoryEntry(path="x/y")],
        [file("t"), HardlinkEntry(path="x", target="t"), file("x/y")],
    ],
)
def test_a_file_that_is_also_a_parent(entries: list[Entry]) -> None:
    """A path that is a file for one entry and a folder for another is refused, and both are named."""
    with pytest.raises(InvalidValueError, match="'x' as a tree of files: it is not a folder, but x/y is inside it"):
        merge_entries(entries)


def test_a_file_and_a_folder_of_one_path() -> None:
    """A path that is an entry as a file and as a folder is refused in either order."""
    for entries in permutations([file("x"), DirectoryEntry(path="x")]):
        with pytest.raises(InvalidValueError, match="a folder, and also not one"):
            merge_entries(entries)


def test_hard_links_follow_their_targets() -> None:
    """Hard links come after all files, chains lead to the file itself."""
    entries = [HardlinkEntry(path="a", target="b"), HardlinkEntry(path="b", target="z"), file("z", b"1")]
    for order in permutations(entries):
        assert merge_entries(order).entries == (
            file("z", b"1"),
            HardlinkEntry(path="a", target="z"),
            HardlinkEntry(path="b", target="z"),
        )


def test_a_hard_link_to_a_replaced_file_keeps_its_bytes() -> None:
    """Where a later package replaces the target, the link is written as a file with the bytes that it was made for."""
    entries = [
        file("x", b"old", executable=True),
        HardlinkEntry(path="y", target="x"),
        HardlinkEntry(path="w", target="y"),
        file("x", b"new"),
    ]
    tree = merge_entries(entries)
    assert tree.entries == (
        file("w", b"old", executable=True),
        file("x", b"new"),
        file("y", b"old", executable=True),
    )
    assert tree.overlaps == ("x",)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([HardlinkEntry(path="a", target="b")], "'a' .* a hard link to b, which is not there"),
        ([HardlinkEntry(path="a", target="b"), HardlinkEntry(path="b", target="a")], "leads to itself"),
        ([HardlinkEntry(path="a", target="d"), DirectoryEntry(path="d")], "'a' .* d, which is not a file"),
        ([HardlinkEntry(path="a", target="s"), SymlinkEntry(path="s", target="x")], "'a' .* s, which is not a file"),
    ],
)
def test_hard_links_that_lead_nowhere(entries: list[Entry], reason: str) -> None:
    """A hard link must lead to a file of the same tree."""
    with pytest.raises(InvalidValueError, match=reason):
        merge_entries(entries)
