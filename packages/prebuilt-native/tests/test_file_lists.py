"""Lists of files: hints that are kept, and that nobody depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.core.documents import FolderDocuments
from prebuilt.native.file_lists import FileLists
from prebuilt.oci.documents import RepositoryDocuments
from prebuilt.oci.open import open_repository
from prebuilt.testing.registry import InMemoryRegistry

FILES = {"a.whl": frozenset({"site/a.py", "site/b.py"}), "b.whl": frozenset({"site/c.py"})}


@pytest.fixture
def lists(tmp_path: Path) -> FileLists:
    """Return an empty store in a folder."""
    return FileLists(documents=FolderDocuments(tmp_path))


def test_a_list_comes_back_as_it_was(lists: FileLists) -> None:
    """It is named by its content: the same files have the same id, wherever they were listed."""
    list_id = lists.write(FILES)
    assert lists.read(list_id) == FILES
    assert lists.write(dict(reversed(FILES.items()))) == list_id


def test_nothing_is_no_list(lists: FileLists, tmp_path: Path) -> None:
    """A bake that made no package's layer leaves no document."""
    assert lists.write({}) == ""
    assert not list(tmp_path.iterdir())


def test_a_list_takes_a_few_bytes_for_each_file(lists: FileLists, tmp_path: Path) -> None:
    """An environment of many thousand files has one that is read in a moment."""
    paths = (f"lib/python3.11/site-packages/package{n % 90}/module_{n}.py" for n in range(50_000))
    lists.write({"large.whl": frozenset(paths)})
    (document,) = tmp_path.iterdir()
    assert document.stat().st_size < 10 * 50_000


@pytest.mark.parametrize("damage", [b"", b"x", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_list_is_empty(
    lists: FileLists, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody's image fails for it."""
    list_id = lists.write(FILES)
    (document,) = tmp_path.iterdir()
    document.write_bytes(damage)
    assert lists.read(list_id) == {}
    assert "cannot be read" in caplog.text


def test_lists_that_are_not_there_or_not_had_are_empty(lists: FileLists) -> None:
    """A list that somebody deleted, and one whose id is none."""
    assert lists.read("0" * 16) == lists.read("NOT/AN ID") == {}


def test_a_registry_that_refuses_costs_no_image(caplog: pytest.LogCaptureFixture) -> None:
    """The layers are catalogued without a list."""
    with InMemoryRegistry() as server:
        server.fail("PUT", "manifests/files-", status=403)
        documents = RepositoryDocuments(open_repository(server.repository("team/image")))
        assert FileLists(documents=documents).write(FILES) == ""
    assert "could not be written" in caplog.text
