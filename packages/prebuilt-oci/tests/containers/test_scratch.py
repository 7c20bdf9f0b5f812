"""Scratch folders: locked while in use, removed when nobody is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")

from prebuilt.oci.containers.scratch import new_scratch, remove_leftovers, remove_tree  # noqa: E402


def test_a_folder_in_use_stays(tmp_path: Path) -> None:
    """Only what nobody holds is left over."""
    scratch = new_scratch(tmp_path)
    remove_leftovers(tmp_path)
    assert (scratch.folder / "upper").is_dir()
    scratch.remove()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_go(tmp_path: Path) -> None:
    """A lock that nobody holds is that of a run that was killed, with its folder or before it had one."""
    (tmp_path / "abc" / "upper").mkdir(parents=True)
    (tmp_path / "abc.lock").touch()
    (tmp_path / "def.lock").touch()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_runs_yet(tmp_path: Path) -> None:
    """A cache that is not there has no leftovers."""
    remove_leftovers(tmp_path / "absent")


def test_the_root_of_a_container_is_open_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper folder's mode is that of ``/``, whatever the umask; the folder around it is private."""
    import os

    before = os.umask(0o077)
    try:
        scratch = new_scratch(tmp_path)
    finally:
        os.umask(before)
    assert (scratch.folder / "upper").stat().st_mode & 0o777 == 0o755
    assert scratch.folder.stat().st_mode & 0o777 == 0o700
    scratch.remove()


def test_closed_folders_are_removed(tmp_path: Path) -> None:
    """Also where their owner may neither read nor write them."""
    folder = tmp_path / "folder"
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "file").touch()
    (folder / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    for path in (folder / "a" / "b", folder / "a", folder):
        path.chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert (tmp_path / "kept").exists()


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    """Removing is idempotent."""
    remove_tree(tmp_path / "absent")
