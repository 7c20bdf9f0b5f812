"""Layers are the same bytes for the same tree, and hold exactly what was given."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from prebuilt.core.errors import CancelledError, InvalidValueError, StorageError
from prebuilt.core.spec import Compression
from prebuilt.core.tree import BytesContent, DirectoryEntry, Entry, FileEntry, HardlinkEntry, PathContent, SymlinkEntry
from prebuilt.oci.compression import PIECE_BYTES, decompress
from prebuilt.oci.layer import LayerMember, PieceBuffers, WrittenLayer, open_layer_tar, read_layer, write_layer
from prebuilt.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD

LONG = "opt/" + "/".join(["long" * 20] * 4) + "/name"
ENTRIES: list[Entry] = [
    FileEntry(path="opt/bin/tool", content=BytesContent(b"#!/bin/sh\n"), executable=True),
    FileEntry(path="opt/empty", content=BytesContent(b"")),
    FileEntry(path="opt/exactly-a-block", content=BytesContent(b"b" * 512)),
    FileEntry(path=LONG, content=BytesContent(b"long")),
    FileEntry(path="opt/ünï/日本.txt", content=BytesContent("語".encode())),
    SymlinkEntry(path="opt/bin/link", target="../../" + LONG),
    HardlinkEntry(path="opt/a-hard-link", target="opt/bin/tool"),
    DirectoryEntry(path="opt/void"),
]


def written(
    entries: list[Entry], compression: Compression = "zstd", *, buffers: PieceBuffers | None = None
) -> tuple[WrittenLayer, bytes]:
    """Return a layer and its bytes."""
    file = io.BytesIO()
    return write_layer(entries, file, compression=compression, buffers=buffers), file.getvalue()


def members(data: bytes, media_type: str = OCI_LAYER_ZSTD) -> dict[str, tuple[tarfile.TarInfo, bytes | None]]:
    """Return all members of a layer, with their bytes."""
    return {
        info.name: (info, content.read() if content else None) for info, content in read_layer(iter([data]), media_type)
    }


@pytest.mark.parametrize(("compression", "media_type"), [("zstd", OCI_LAYER_ZSTD), ("gzip", OCI_LAYER_GZIP)])
def test_layer_holds_the_tree(compression: Compression, media_type: str) -> None:
    """Every entry comes back with its bytes, mode and target; owner and time are fixed for files, links and folders."""
    layer, data = written(ENTRIES, compression)
    assert layer.descriptor.media_type == media_type
    found = members(data, media_type)
    for info, _ in found.values():
        assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 0)
        assert not {"mtime", "atime", "ctime"} & set(info.pax_headers)
    assert {name: info.mode for name, (info, _) in found.items() if info.isreg()} == {
        "opt/bin/tool": 0o755,
        "opt/empty": 0o644,
        "opt/exactly-a-block": 0o644,
        LONG: 0o644,
        "opt/ünï/日本.txt": 0o644,
    }
    assert all(info.mode == 0o755 for info, _ in found.values() if info.isdir())
    assert found["opt/void"][0].isdir()
    assert found[LONG][1] == b"long"
    assert found["opt/exactly-a-block"][1] == b"b" * 512
    assert found["opt/empty"][1] == b""
    assert found["opt/ünï/日本.txt"][1] == "語".encode()
    link = found["opt/bin/link"][0]
    assert (link.issym(), link.linkname, link.mode) == (True, "../../" + LONG, 0o777)
    hard = found["opt/a-hard-link"][0]
    assert (hard.islnk(), hard.linkname, hard.mode) == (True, "opt/bin/tool", 0o755)


def test_order() -> None:
    """Parents come before children, targets before hard links, and everything else is sorted."""
    names = [info.name for info, _ in read_layer(iter([written(ENTRIES)[1]]), OCI_LAYER_ZSTD)]
    assert names[-1] == "opt/a-hard-link"
    assert names[:-1] == sorted(names[:-1])
    assert names[0] == "opt"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_digests_are_of_the_bytes(compression: Compression) -> None:
    """Descriptor, diff_id and sizes are those of what was written."""
    layer, data = written(ENTRIES, compression)
    assert layer.descriptor.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.descriptor.size == len(data)
    plain = b"".join(decompress(iter([data]), layer.descriptor.media_type))
    assert layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert layer.uncompressed_bytes == len(plain)


def test_known_digest() -> None:
    """The tar of a known tree is known: it must not change with the version of Python, or by accident."""
    assert written(ENTRIES)[0].diff_id == "sha256:60c8277fc0d84858a4a9b61c2088544e6f9d12a96c93bbf073bfdf199176c45b"


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_reproducible(tmp_path: Path, compression: Compression) -> None:
    """Order of entries, order and time of creation, umask and folder do not show in the layer."""

    def tree(root: Path, names: list[str], umask: int, mtime: float) -> list[Entry]:
        before = os.umask(umask)
        try:
            for name in names:
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{name} " * 1000)
                os.utime(path, (mtime, mtime))
        finally:
            os.umask(before)
        return [FileEntry(path=name, content=PathContent(root / name)) for name in names]

    names = [f"opt/{folder}/{name}" for folder in "abc" for name in "xyz"]
    one = tree(tmp_path / "one", names, 0o022, time.time())
    two = tree(tmp_path / "elsewhere", names[::-1], 0o077, 1.0)
    assert written(one, compression) == written(two, compression)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_buffers_that_layers_share_change_no_byte(compression: Compression) -> None:
    """What the layer before left in them is in no other, also where it failed; and they are the same memory."""
    large: list[Entry] = [FileEntry(path="large", content=BytesContent(os.urandom(PIECE_BYTES + 1)))]
    fails: list[Entry] = [FileEntry(path="fails", content=Pattern(2 * PIECE_BYTES, PIECE_BYTES))]
    buffers = PieceBuffers()
    with buffers.lend() as first, buffers.lend() as second:
        pass
    assert written(large, compression, buffers=buffers) == written(large, compression)
    with pytest.raises(StorageError):
        written(fails, compression, buffers=buffers)
    assert written(ENTRIES, compression, buffers=buffers) == written(ENTRIES, compression)
    with buffers.lend() as one, buffers.lend() as other:
        assert {id(one), id(other)} == {id(first), id(second)}


def test_overlaps_are_reported() -> None:
    """Of two entries with one path the last is written, and the path is named."""
    first, second = (FileEntry(path="x", content=BytesContent(data)) for data in (b"1", b"2"))
    layer, data = written([first, second])
    assert layer.overlaps == ("x",)
    assert members(data)["x"][1] == b"2"


def test_no_layer_is_empty() -> None:
    """A layer without entries is refused."""
    with pytest.raises(InvalidValueError, match="no entries"):
        written([])


def test_an_empty_layer_of_a_base_can_be_read() -> None:
    """Docker makes them for instructions that change nothing: a tar of zeros."""
    assert list(read_layer(iter([bytes(1024)]), "application/vnd.oci.image.layer.v1.tar")) == []


def test_sparse_files_are_written_out(tmp_path: Path) -> None:
    """Holes of a sparse file are zeros in the layer."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(3_000_000)
        file.seek(2_000_000)
        file.write(b"x")
    _, data = written([FileEntry(path="sparse", content=PathContent(sparse))])
    info, content = members(data)["sparse"]
    assert content == sparse.read_bytes()
    assert not info.issparse()


@dataclass
class Pattern:
    """A large file that exists only while it is read; notes what is asked of it."""

    size: int
    actual: int
    log: list[str] = field(default_factory=list)
    name: str = ""

    def open(self) -> BinaryIO:
        """Return a stream that makes its bytes as it goes, 100 kB at a time."""
        self.log.append(f"open {self.name}")
        return _PatternStream(self.actual)

    def prefetch(self) -> None:
        """Note it."""
        self.log.append(f"prefetch {self.name}")


class _PatternStream(io.BytesIO):
    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def read(self, size: int | None = -1) -> bytes:
        count = min(self.left, 100_000, self.left if size is None or size < 0 else size)
        self.left -= count
        return b"\x07" * count


@pytest.mark.parametrize(("actual", "came"), [(999_999, "999999 came"), (1_000_001, "more came")])
def test_a_content_of_another_length(actual: int, came: str) -> None:
    """A content that is not as long as it said is an error that names the file."""
    with pytest.raises(StorageError, match=f"opt/x: 1000000 bytes were announced, and {came}"):
        written([FileEntry(path="opt/x", content=Pattern(1_000_000, actual))])


def test_memory_is_bounded() -> None:
    """A file of 256 MB is streamed: two pieces of it are in memory, and what became of one."""

    class Sink(io.BytesIO):
        def write(self, data: object) -> int:
            return 0

    content = Pattern(256_000_000, 256_000_000)
    tracemalloc.start()
    try:
        write_layer([FileEntry(path="big", content=content)], Sink(), compression="zstd")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60_000_000


def test_prefetch_runs_ahead_and_not_too_far() -> None:
    """Each content is prefetched once, before it is opened, and at most 64 entries ahead."""
    log: list[str] = []
    entries: list[Entry] = [
        FileEntry(path=f"{number:04}", content=Pattern(1, 1, log, f"{number:04}")) for number in range(200)
    ]
    written(entries)
    assert sorted(log) == sorted(f"{verb} {number:04}" for verb in ("open", "prefetch") for number in range(200))
    opened = prefetched = 0
    for line in log:
        opened += line.startswith("open")
        prefetched += line.startswith("prefetch")
        assert opened <= prefetched <= opened + 65
    assert log[:64] == [f"prefetch {number:04}" for number in range(64)]
    assert log[64] == "open 0000"


def test_progress_and_check() -> None:
    """Progress adds up to the size of the tar; a check that raises stops the work between chunks."""
    advanced: list[int] = []
    layer = write_layer(ENTRIES, io.BytesIO(), compression="zstd", advance=advanced.append)
    assert sum(advanced) == layer.uncompressed_bytes

    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks > 10:
            raise CancelledError("go on", reason="stopped")

    with pytest.raises(CancelledError):
        write_layer(
            [FileEntry(path="big", content=Pattern(64_000_000, 64_000_000))],
            io.BytesIO(),
            compression="zstd",
            check=check,
        )


def test_reading_takes_every_chunk() -> None:
    """Reading a layer to its end takes all chunks, those after the tar's end too: the last one is what verifies the digest."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    taken: list[bytes] = []

    def chunks() -> Iterator[bytes]:
        for chunk in (plain.getvalue(), bytes(5 << 20), b"last"):
            taken.append(chunk)
            yield chunk

    assert [info.name for info, _ in read_layer(chunks(), OCI_LAYER)] == ["x"]
    assert taken[-1] == b"last"


def test_reading_a_layer_piece_by_piece() -> None:
    """Members may be skipped, partly read or not read at all."""
    entries: list[Entry] = [FileEntry(path=name, content=BytesContent(name.encode() * 1000)) for name in "abc"]
    found: list[LayerMember] = []
    for member in read_layer(iter([written(entries)[1]]), OCI_LAYER_ZSTD):
        found.append(member)
        if member.info.name == "b":
            assert member.content is not None
            assert member.content.read(3) == b"bbb"
    assert [member.info.name for member in found] == ["a", "b", "c"]


@pytest.mark.parametrize("data", [b"", b"no tar" * 1000])
def test_reading_what_is_no_tar(data: bytes) -> None:
    """Bytes that are no tar are an error of ours."""
    with pytest.raises(InvalidValueError, match="a layer: it is damaged"):
        list(read_layer(iter([data]), OCI_LAYER))


def test_open_layer_tar() -> None:
    """A tar can be had as tarfile's own object, to be read once."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    with open_layer_tar(iter([plain.getvalue()])) as archive:
        assert [info.name for info in archive] == ["x"]
