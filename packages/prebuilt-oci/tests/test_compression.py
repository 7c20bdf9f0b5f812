"""Compression gives the same bytes each time, and any layer of a registry can be read."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from prebuilt.core.errors import InvalidValueError
from prebuilt.core.spec import Compression
from prebuilt.oci import media_types
from prebuilt.oci.compression import (
    MIDDLING_BYTES,
    SMALL_BYTES,
    ChunkReader,
    decompress,
    layer_media_type,
    new_compressor,
)

DATA = random.Random(1).randbytes(300_000) + b"and text " * 100_000  # noqa: S311 - not secret, but the same each time
SKIPPABLE = (0x184D2A50).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello"


def compressed(data: bytes, compression: Compression, step: int = 1 << 20) -> bytes:
    """Compress `data` in pieces of `step` bytes."""
    compressor = new_compressor(compression)
    pieces = [compressor.compress(memoryview(data)[start : start + step]) for start in range(0, len(data), step)]
    return b"".join([*pieces, compressor.flush()])


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Yield `data` in chunks."""
    yield from (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("size", [1, 4093, 1 << 20])
def test_round_trip(compression: Compression, size: int) -> None:
    """What was compressed is read back, in whatever chunks it comes."""
    data = DATA if size > 1 else DATA[:5000]
    assert b"".join(decompress(pieces(compressed(data, compression), size), layer_media_type(compression))) == data


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_same_bytes_each_time(compression: Compression) -> None:
    """The same data gives the same bytes."""
    assert compressed(DATA, compression) == compressed(DATA, compression)


def test_small_layers_are_compressed_harder() -> None:
    """What is expected to be small takes longer and becomes smaller, and any decoder can read it."""
    text = memoryview(b"".join(path.read_bytes() for path in sorted(Path(io.__file__).parent.glob("*.py"))))
    sizes = {
        expected: len(new_compressor("zstd", expected_bytes=expected).compress(text))
        for expected in (None, MIDDLING_BYTES, MIDDLING_BYTES - 1, SMALL_BYTES, SMALL_BYTES - 1)
    }
    assert (
        sizes[None] == sizes[MIDDLING_BYTES] > sizes[MIDDLING_BYTES - 1] == sizes[SMALL_BYTES] > sizes[SMALL_BYTES - 1]
    )
    frame = new_compressor("zstd", expected_bytes=0).compress(text)
    assert zstandard.get_frame_parameters(frame).window_size <= 8 << 20
    assert zstandard.ZstdDecompressor().decompress(frame) == text


def test_headers() -> None:
    """A gzip header has no name and time 0, a zstd frame says how much it holds and has no checksum."""
    assert compressed(b"x", "gzip")[:8] == bytes.fromhex("1f8b080000000000")
    frame = zstandard.get_frame_parameters(compressed(b"x", "zstd"))
    assert frame.content_size == 1
    assert not frame.has_checksum


def test_several_zstd_frames() -> None:
    """Frames one after another, and frames to be skipped (zstd:chunked has both), are one stream."""
    frame = compressed(DATA, "zstd")
    stream = SKIPPABLE + frame + SKIPPABLE + frame + SKIPPABLE
    for size in (1000, 1 << 20):
        assert b"".join(decompress(pieces(stream, size), media_types.OCI_LAYER_ZSTD)) == DATA + DATA


def test_several_gzip_members() -> None:
    """Gzip members one after another (eStargz has them) are one stream."""
    stream = gzip.compress(DATA) + gzip.compress(b"more")
    assert b"".join(decompress(pieces(stream, 1000), media_types.DOCKER_LAYER_GZIP)) == DATA + b"more"


def test_plain_layers() -> None:
    """A layer that is not compressed passes through."""
    assert list(decompress(iter([b"a", b"b"]), media_types.OCI_LAYER)) == [b"a", b"b"]


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("cut", [1, 1000, 290_000])
def test_a_stream_that_ends_early(compression: Compression, cut: int) -> None:
    """A stream without its end is an error, never a shorter layer."""
    stream = compressed(DATA, compression)[:-cut]
    with pytest.raises(InvalidValueError, match=r"damaged: .* end"):
        list(decompress(pieces(stream, 1000), layer_media_type(compression)))


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_stream_that_is_something_else(compression: Compression) -> None:
    """Bytes of another kind are an error."""
    with pytest.raises(InvalidValueError, match="damaged"):
        list(decompress(iter([b"neither the one nor the other"]), layer_media_type(compression)))


def test_an_unknown_media_type() -> None:
    """What is not a layer is refused by name."""
    with pytest.raises(InvalidValueError, match=r"vnd\.oci\.image\.config"):
        decompress(iter([]), media_types.OCI_CONFIG)


def test_chunk_reader() -> None:
    """A stream of chunks reads like a file, whatever the chunks are."""
    reader = io.BufferedReader(ChunkReader(iter([b"ab", b"", b"cdef", b""])))
    assert [reader.read(3), reader.read(1), reader.read()] == [b"abc", b"d", b"ef"]
