"""Members of zip files as contents: streamed, checked, bounded."""

from __future__ import annotations

import random
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from prebuilt.core.errors import PackageError
from prebuilt.lock.zip_archive import ZipArchive, ZipMember


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - what is wanted is that it does not compress


def _write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _member_of(archive: ZipArchive, name: str) -> ZipMember:
    return next(member for member in archive.members() if member.name == name)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [0, 1, 70_000, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_a_member_gives_its_bytes_and_their_number(tmp_path: Path, compression: int, size: int):
    """Whatever the size and compression, what was put in comes out, and `size` says so beforehand."""
    data = _noise(size // 2) + bytes(size - size // 2)
    with ZipArchive(_write_zip(tmp_path / "a.zip", {"x": b"before", "y": data}, compression)) as archive:
        member = _member_of(archive, "y")
        assert member.size == size
        with member.open() as stream:
            assert stream.read() == data


def test_a_member_can_be_read_piece_by_piece_and_again(tmp_path: Path):
    """Each stream has its own position."""
    data = _noise(3_000_000)
    with ZipArchive(_write_zip(tmp_path / "a.zip", {"x": data})) as archive:
        member = _member_of(archive, "x")
        with member.open() as one, member.open() as other:
            assert one.read(1000) == data[:1000]
            assert other.read(10) == data[:10]
            assert one.read() == data[1000:]


def test_a_large_member_gives_what_it_has(tmp_path: Path):
    """A read of a large member may be short, but is empty at the end only, and never longer than was asked for."""
    data = _noise(3_000_000)
    with ZipArchive(_write_zip(tmp_path / "a.zip", {"x": data})) as archive, _member_of(archive, "x").open() as stream:
        pieces = list(iter(lambda: stream.read(1_000_000), b""))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1_000_000


def test_a_large_member_is_never_whole_in_memory(tmp_path: Path):
    """60 MB of zeros, which deflate packs into 60 kB, cost no more than some buffers."""
    with ZipArchive(_write_zip(tmp_path / "a.zip", {"x": bytes(60_000_000)})) as archive:
        tracemalloc.start()
        try:
            with _member_of(archive, "x").open() as stream:
                total = sum(len(chunk) for chunk in iter(lambda: stream.read(1 << 20), b""))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert total == 60_000_000
    assert peak < 8_000_000


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_a_flipped_bit_is_an_error_that_names_the_member(tmp_path: Path, size: int):
    """The checksum of what comes out is compared with the archive's."""
    path = _write_zip(tmp_path / "a.zip", {"x.py": _noise(size)}, zipfile.ZIP_STORED)
    damaged = bytearray(path.read_bytes())
    damaged[size // 2] ^= 1
    path.write_bytes(damaged)
    with (
        ZipArchive(path) as archive,
        pytest.raises(PackageError, match=r"unpack x\.py of a\.zip: its checksum is wrong"),
    ):
        _member_of(archive, "x.py").read()


def test_damaged_deflate_data_is_an_error(tmp_path: Path):
    """So is data that cannot be inflated, or that ends early."""
    path = _write_zip(tmp_path / "a.zip", {"x": b"text " * 10_000})
    damaged = bytearray(path.read_bytes())
    damaged[31:45] = b"\xff" * 14
    path.write_bytes(damaged)
    with ZipArchive(path) as archive, pytest.raises(PackageError, match="unpack x of"):
        _member_of(archive, "x").open()


def test_rare_compression_is_refused(tmp_path: Path):
    """Compression that no wheel has is an error that names it."""
    path = _write_zip(tmp_path / "a.zip", {"x": b"text"}, zipfile.ZIP_LZMA)
    with ZipArchive(path) as archive, pytest.raises(PackageError, match="compression method 14"):
        _member_of(archive, "x").open()


def test_what_is_no_zip_file_is_refused(tmp_path: Path):
    """An HTML page that a proxy sent, say."""
    (tmp_path / "a.whl").write_bytes(b"<html>")
    with pytest.raises(PackageError, match=r"open a\.whl: it is damaged"):
        ZipArchive(tmp_path / "a.whl")


def test_a_file_that_was_cut_off_is_an_error(tmp_path: Path):
    """The table of contents may be whole and the data not."""
    path = _write_zip(tmp_path / "a.zip", {"x": b"text"})
    with ZipArchive(path) as archive:
        path.write_bytes(b"")
        with pytest.raises(PackageError, match="the file ends before"):
            _member_of(archive, "x").open()
