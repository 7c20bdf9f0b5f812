"""Unpacking layers: what they hold arrives, and nothing leaves the folder."""

from __future__ import annotations

import io
import os
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from prebuilt.core.errors import ContainerError
from prebuilt.oci.containers.scratch import remove_tree
from prebuilt.oci.containers.unpacking import OPAQUE_ATTRIBUTE, unpack_layer
from prebuilt.testing.tar_image import TarLayer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="overlay mounts are Linux's")

Unpack = Callable[[TarLayer], Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """Unpack a layer into a new folder."""

    def run(layer: TarLayer) -> Path:
        root = tmp_path / "root"
        root.mkdir()
        with tarfile.open(fileobj=io.BytesIO(layer.data), mode="r|") as archive:
            unpack_layer(archive, str(root))
        return root

    return run


def is_whiteout(path: Path) -> bool:
    """Whether overlay mounts take it for one."""
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    """Whether it hides what is below it."""
    return OPAQUE_ATTRIBUTE in os.listxattr(path) and os.getxattr(path, OPAQUE_ATTRIBUTE) == b"y"


def test_files_keep_mode_and_time(unpack: Unpack) -> None:
    """Bytecode is valid by the time of its source; set-id bits have no meaning and go."""
    layer = TarLayer().add("bin/tool", data=b"x" * 3_000_000, mode=0o6755, mtime=1234567890.75).add("empty", mode=0o400)
    root = unpack(layer)
    tool = (root / "bin" / "tool").stat()
    assert (stat.S_IMODE(tool.st_mode), int(tool.st_mtime), tool.st_size) == (0o755, 1234567890, 3_000_000)
    assert stat.S_IMODE((root / "empty").stat().st_mode) == 0o400


def test_folders_keep_mode_and_time_whatever_is_written_into_them(unpack: Unpack) -> None:
    """A folder that its owner may not write to gets its files nevertheless."""
    root = unpack(
        TarLayer().folder("ro", mode=0o555, mtime=1000).add("ro/file").folder("tmp", mode=0o1777).folder("./")
    )
    assert (stat.S_IMODE((root / "ro").stat().st_mode), (root / "ro").stat().st_mtime) == (0o555, 1000)
    assert (root / "ro" / "file").exists()
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    remove_tree(root)


def test_times_that_no_disk_can_hold_are_bent(unpack: Unpack) -> None:
    """A layer may claim any time."""
    root = unpack(TarLayer().add("old", mtime=-5).add("far", mtime=1 << 60, pax_headers={"mtime": str(1 << 60)}))
    assert (root / "old").stat().st_mtime == 0
    assert (root / "far").exists()


def test_links(unpack: Unpack) -> None:
    """Symbolic links are kept as they are; hard links are one file."""
    root = unpack(TarLayer().add("a", data=b"a").hardlink("b/c", "./a").symlink("d", "/etc/passwd").hardlink("a", "a"))
    assert (root / "a").stat().st_ino == (root / "b" / "c").stat().st_ino
    assert (root / "d").readlink() == Path("/etc/passwd")


def test_a_hard_link_to_a_symbolic_link_is_that_link(unpack: Unpack) -> None:
    """It does not follow it."""
    root = unpack(TarLayer().symlink("s", "/etc/passwd").hardlink("h", "s"))
    assert (root / "h").readlink() == Path("/etc/passwd")


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/../out", "a/.."])
def test_entries_with_parent_folders_are_refused(unpack: Unpack, tmp_path: Path, name: str) -> None:
    """No tool writes such an entry in good faith."""
    with pytest.raises(ContainerError, match="must not name its parent"):
        unpack(TarLayer().add(name))
    assert not (tmp_path / "out").exists()


def test_absolute_names_stay_inside(unpack: Unpack, tmp_path: Path) -> None:
    """The root of a layer is its folder."""
    root = unpack(TarLayer().add(f"{tmp_path}/inside"))
    assert (root / str(tmp_path).lstrip("/") / "inside").exists()
    assert not (tmp_path / "inside").exists()


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../../../..{outside}"])
def test_no_entry_is_written_through_a_link_to_outside(unpack: Unpack, tmp_path: Path, target: str) -> None:
    """Links on the way are followed as if the folder were the root: files, folders, links, whiteouts and opaque marks."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("as it was")
    layer = TarLayer().symlink("way", target.format(outside=outside))
    layer.add("way/file").folder("way/folder").symlink("way/link", "x").hardlink("way/hard", "way/file")
    layer.add("way/.wh.victim").add("way/.wh..wh..opq")
    root = unpack(layer)
    assert sorted(path.name for path in outside.iterdir()) == ["victim"]
    assert OPAQUE_ATTRIBUTE not in os.listxattr(outside)
    inside = root / str(outside).lstrip("/")
    assert {path.name for path in inside.iterdir()} == {"file", "folder", "link", "hard", "victim"}


def test_a_file_is_not_written_through_a_link_at_its_own_place(unpack: Unpack, tmp_path: Path) -> None:
    """What a later entry replaces is removed first, never followed; a folder's mode does not go through it either."""
    (tmp_path / "victim").write_text("as it was")
    (tmp_path / "folder").mkdir(mode=0o700)
    layer = TarLayer().symlink("file", str(tmp_path / "victim")).add("file", data=b"new")
    layer.folder("folder", mode=0o777).symlink("folder", str(tmp_path / "folder"))
    root = unpack(layer)
    assert ((tmp_path / "victim").read_text(), (root / "file").read_bytes()) == ("as it was", b"new")
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "way/passwd", "absent", "folder", ""])
def test_hard_links_to_elsewhere_are_refused(unpack: Unpack, target: str) -> None:
    """A hard link leads to a file that this layer has."""
    with pytest.raises(ContainerError):
        unpack(TarLayer().symlink("way", "/etc").folder("folder").hardlink("link", target))


def test_links_in_a_circle_are_refused(unpack: Unpack) -> None:
    """As the kernel does."""
    with pytest.raises(ContainerError, match="circle"):
        unpack(TarLayer().symlink("a", "b").symlink("b", "a").add("a/file"))


def test_a_file_that_is_also_a_folder_is_refused(unpack: Unpack) -> None:
    """Nothing can be written below a file."""
    with pytest.raises(ContainerError, match="a is not a folder"):
        unpack(TarLayer().add("a").add("a/b"))


def test_later_entries_win(unpack: Unpack) -> None:
    """Whatever kind comes after whatever kind."""
    layer = TarLayer().add("x/deep/er").add("x").folder("x").add("x/new").add("y", data=b"1").add("y", data=b"2")
    root = unpack(layer.symlink("z", "y").folder("z").add("z/in"))
    assert [path.name for path in (root / "x").iterdir()] == ["new"]
    assert (root / "y").read_bytes() == b"2"
    assert (root / "z" / "in").exists()


def test_whiteouts_become_overlays(unpack: Unpack) -> None:
    """A hidden file is a device 0:0, an opaque folder has the attribute, aufs's own files are left out."""
    layer = TarLayer().folder("a").add("a/.wh.gone").folder("b").add("b/.wh..wh..opq").add("b/new").add(".wh..wh.plnk")
    root = unpack(layer)
    assert is_whiteout(root / "a" / "gone")
    assert is_opaque(root / "b")
    assert not is_opaque(root / "a")
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


def test_a_whiteout_hides_lower_layers_only(unpack: Unpack) -> None:
    """What this layer has of the same name stays, whichever comes first; a folder then hides the one below."""
    layer = (
        TarLayer()
        .add("f")
        .add(".wh.f")
        .add("d/new")
        .add(".wh.d")
        .add(".wh.e")
        .folder("e")
        .add("e/new")
        .add(".wh.g")
        .add("g")
    )
    layer.add(".wh.h").add("h/new")
    root = unpack(layer)
    assert (root / "f").is_file()
    assert (root / "g").is_file()
    assert [is_opaque(root / name) for name in "deh"] == [True, True, True]
    assert (root / "h" / "new").is_file()


@pytest.mark.parametrize("name", [".wh.", ".wh...", ".wh.."])
def test_whiteouts_of_nothing_are_refused(unpack: Unpack, name: str) -> None:
    """They would name the folder itself or its parent."""
    with pytest.raises(ContainerError, match="whiteout of nothing"):
        unpack(TarLayer().add(name))


def test_devices_are_left_out_and_pipes_kept(unpack: Unpack) -> None:
    """Nobody but root could make devices."""
    root = unpack(
        TarLayer()
        .add("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
        .add("disk", tarfile.BLKTYPE)
        .add("p", tarfile.FIFOTYPE)
    )
    assert [path.name for path in root.iterdir()] == ["p"]
    assert stat.S_ISFIFO((root / "p").stat().st_mode)


def test_names_that_are_long_or_not_text(unpack: Unpack) -> None:
    """File names are bytes."""
    long = "/".join(["n" * 200] * 5)
    root = unpack(TarLayer().add(long).add("ünï").add("bad\udcff"))
    assert (root / long).exists()
    assert (root / "ünï").exists()
    assert (root / "bad\udcff").exists()
