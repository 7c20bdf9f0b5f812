"""Compression of layers: what writes them, and what reads any that a registry may serve. Streams, never a whole layer."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from prebuilt.core.errors import InvalidValueError
from prebuilt.core.spec import Compression
from prebuilt.oci.media_types import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
)
from prebuilt.oci.repository import CHUNK_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP_LEVEL = 2
"""isal's 2 takes no longer than its 1 and is smaller; 3 is its last and much slower."""

PIECE_BYTES = 16 << 20
"""What a compressor is given at a time, but for the last. The bytes that come out depend on it, so it is the same for all layers."""

SMALL_BYTES = 4 << 20
"""A layer that is expected to be smaller is compressed as small as is worth the time: it has next to no share in a bake, and this
keeps layers of small packages, whose bytecode doubles them, below 8 MB."""

MIDDLING_BYTES = 32 << 20
"""Below this a layer is mostly source, bytecode and small libraries, above it large libraries."""

_WINDOW_LOG = 23  # 8 MiB, the most that every decoder must take (RFC 8878, section 3.1.1.1.2)
_ZSTD_LARGE = zstandard.ZstdCompressionParameters(
    window_log=_WINDOW_LOG,
    hash_log=17,
    chain_log=16,
    search_log=1,
    min_match=7,
    target_length=0,
    strategy=zstandard.STRATEGY_FAST,
)
"""Found by measuring pandas, scipy, xgboost and NCCL: shared libraries repeat themselves over megabytes, so a large window with the
cheapest search beats zstd's own levels, and a frame for each piece beats one for all, whose input zstd would copy: about as
small as level 3 in less than half its time. A hash table of twice the size, half a processor's own cache, gains 4 % and costs
a third more time."""

_ZSTD_MIDDLING = zstandard.ZstdCompressionParameters(
    window_log=_WINDOW_LOG,
    hash_log=17,
    chain_log=17,
    search_log=1,
    min_match=5,
    target_length=0,
    strategy=zstandard.STRATEGY_DFAST,
)
"""Found by measuring pandas, scikit-learn, matplotlib, numpy and pillow: 7 % smaller than the one above, in half as much time again."""

_ZSTD_SMALL = zstandard.ZstdCompressionParameters(
    window_log=_WINDOW_LOG,
    hash_log=19,
    chain_log=18,
    search_log=3,
    min_match=5,
    target_length=4,
    strategy=zstandard.STRATEGY_LAZY,
)
"""Level 6 with a larger window: 13 % smaller than the first, in three times its time. Level 9 takes twice that for 5 %."""

_ZSTD_INPUT_BYTES = 1 << 12  # zstd turns 4 bytes into 128 KiB of zeros: what comes of this much still fits into memory
_ISAL_ERROR = cast("type[Exception]", isal_zlib.error)  # its stubs have it as an instance
_GZIP_CONTAINER = 31  # as zlib's wbits: largest window, gzip header; the header has no name and time 0
_READERS = {
    OCI_LAYER: "plain",
    DOCKER_LAYER: "plain",
    OCI_LAYER_GZIP: "gzip",
    DOCKER_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    DOCKER_LAYER_ZSTD: "zstd",
}
_LAYER_TYPES: dict[Compression, str] = {"zstd": OCI_LAYER_ZSTD, "gzip": OCI_LAYER_GZIP}


class Compressor(Protocol):
    """Turns bytes into compressed bytes, piece by piece."""

    def compress(self, data: memoryview, /) -> bytes:
        """Return what is ready after `data`; often nothing."""

    def flush(self) -> bytes:
        """Return the rest."""


def layer_media_type(compression: Compression) -> str:
    """Return OCI's media type of a layer that is compressed so."""
    return _LAYER_TYPES[compression]


class _ZstdFrames:
    """A frame for each piece; frames one after another are one stream (RFC 8878, section 3)."""

    def __init__(self, parameters: zstandard.ZstdCompressionParameters) -> None:
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)

    def compress(self, data: bytes | memoryview) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return b""


def new_compressor(compression: Compression, *, expected_bytes: int | None = None) -> Compressor:
    """Return a compressor whose output depends on its arguments, its input and the version of the library alone.

    Hence one thread, a frame without checksum (digests are checked), and gzip's header without name and time.

    Args:
        compression: What comes out.
        expected_bytes: About how much will come out; with zstd, what is small is compressed harder. None for large.
    """
    if compression == "gzip":
        return cast("Compressor", isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_CONTAINER))
    return _ZstdFrames(_zstd_parameters(expected_bytes))


def _zstd_parameters(expected_bytes: int | None) -> zstandard.ZstdCompressionParameters:
    if expected_bytes is None or expected_bytes >= MIDDLING_BYTES:
        return _ZSTD_LARGE
    return _ZSTD_SMALL if expected_bytes < SMALL_BYTES else _ZSTD_MIDDLING


def decompress(chunks: Iterator[bytes], media_type: str) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a layer, and take all of `chunks`, so that whoever checks them gets to their end.

    Gzip may have several members (eStargz has) and zstd several frames and skippable ones (zstd:chunked has).

    Raises:
        InvalidValueError: `media_type` is not that of a layer, or the stream is damaged or ends early.
    """
    reader = _READERS.get(media_type)
    if reader is None:
        raise InvalidValueError("the media type of a layer", media_type, reason="it is not plain, gzip or zstd")
    if reader == "plain":
        return chunks
    return _damage_named(_gunzip(chunks) if reader == "gzip" else _unzstd(chunks), media_type)


def _damage_named(pieces: Iterator[bytes], media_type: str) -> Iterator[bytes]:
    try:
        yield from pieces
    except (EOFError, gzip.BadGzipFile, _ISAL_ERROR, zstandard.ZstdError) as error:
        raise InvalidValueError("a layer", media_type, reason=f"it is damaged: {error}") from error


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    source = cast("BinaryIO", io.BufferedReader(ChunkReader(chunks), CHUNK_BYTES))
    with igzip.IGzipFile(fileobj=source, mode="rb") as file:  # type: ignore[no-untyped-call]  # so are its stubs
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Read frame after frame. zstandard's `stream_reader` would too, but takes one that ends early for a whole one."""
    zstd = zstandard.ZstdDecompressor()
    frame, is_begun = zstd.decompressobj(), False
    for chunk in chunks:
        for start in range(0, len(chunk), _ZSTD_INPUT_BYTES):
            data = chunk[start : start + _ZSTD_INPUT_BYTES]
            while data:
                is_begun = True
                if piece := frame.decompress(data):
                    yield piece
                data = frame.unused_data
                if frame.eof:
                    frame, is_begun = zstd.decompressobj(), False
    if is_begun:
        raise EOFError("a zstd frame ends early")


class ChunkReader(io.RawIOBase):
    """A stream of the bytes of an iterator of chunks. Wrap it in :class:`io.BufferedReader` for small reads."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        """Read from `chunks`, one at a time."""
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with bytes of one chunk; return how many, 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
