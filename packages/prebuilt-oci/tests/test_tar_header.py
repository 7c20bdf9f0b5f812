"""Headers of tar members say what was asked for, to every reader."""

from __future__ import annotations

import io
import tarfile

import pytest

from prebuilt.core.errors import InvalidValueError
from prebuilt.oci import tar_header as tar


def read(header: bytes) -> tarfile.TarInfo:
    """Return the member that `header` begins."""
    with tarfile.open(fileobj=io.BytesIO(header + tar.END_OF_ARCHIVE), mode="r:") as archive:
        info = archive.next()
        assert info is not None
        return info


@pytest.mark.parametrize(
    "name", ["a", "a" * 100, "a" * 101, "d/" + "b" * 255, "c" * 1000, "ü/é", "日本/" * 40 + "語", "a=b\nc"]
)
def test_names_come_back(name: str) -> None:
    """Short, long and non-ASCII names, and those of link targets, are read back as they were."""
    assert read(tar.tar_header(name, tar.REGULAR, mode=0o644)).name == name
    link = read(tar.tar_header(name, tar.SYMLINK, mode=0o777, link=name))
    assert (link.name, link.linkname, link.issym()) == (name, name, True)
    assert len(tar.tar_header(name, tar.REGULAR, mode=0o644)) % 512 == 0


def test_fields() -> None:
    """Owner, time and names of owners are fixed; mode, kind and size are as given."""
    info = read(tar.tar_header("x", tar.REGULAR, mode=0o755, size=0))
    assert (info.mode, info.uid, info.gid, info.mtime, info.uname, info.gname) == (0o755, 0, 0, 0, "", "")
    assert info.isreg()
    folder = read(tar.tar_header("x", tar.DIRECTORY, mode=0o755))
    assert folder.isdir()
    assert folder.name == "x"
    link = read(tar.tar_header("y", tar.HARDLINK, mode=0o644, link="x"))
    assert link.islnk()
    assert link.linkname == "x"


def test_short_names_are_plain_ustar() -> None:
    """Where no extended record is needed the header is what tarfile itself would write."""
    info = tarfile.TarInfo("some/file")
    info.size, info.mode = 12345, 0o755
    expected = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    ours = tar.tar_header("some/file", tar.REGULAR, mode=0o755, size=12345)
    for field in (slice(0, 148), slice(156, 329)):  # all but the checksum and, different in each Python, the devices
        assert ours[field] == expected[field]


def test_sizes_beyond_8_gib() -> None:
    """A size that ustar cannot hold is in an extended record."""
    header = tar.tar_header("big", tar.REGULAR, mode=0o644, size=8**11)
    assert len(header) == 3 * 512
    assert read(header).size == 8**11
    assert len(tar.tar_header("big", tar.REGULAR, mode=0o644, size=8**11 - 1)) == 512


def test_no_times_in_extended_records() -> None:
    """Extended records hold names and sizes alone, no times and no owners."""
    info = read(tar.tar_header("ü" * 200, tar.REGULAR, mode=0o644, size=0))
    assert set(info.pax_headers) == {"path"}


@pytest.mark.parametrize("length", range(80, 130))
def test_record_lengths_that_gain_a_digit(length: int) -> None:
    """The length of a record, which counts itself, is right around the points where it gains a digit."""
    name = "é" + "x" * length
    assert read(tar.tar_header(name, tar.REGULAR, mode=0o644)).name == name


@pytest.mark.parametrize(("name", "reason"), [("bad\udc80", "not valid Unicode"), ("bad\0name", "NUL")])
def test_names_that_no_tar_can_hold(name: str, reason: str) -> None:
    """Names that are no text, or hold a NUL, are refused."""
    with pytest.raises(InvalidValueError, match=reason):
        tar.tar_header(name, tar.REGULAR, mode=0o644)
