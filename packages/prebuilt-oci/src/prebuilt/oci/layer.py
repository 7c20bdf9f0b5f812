"""Layers: reproducible tars, compressed and hashed as they are written; and reading those that others wrote."""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from mmap import mmap
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast, final

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import InvalidValueError, StorageError
from prebuilt.core.spec import Compression
from prebuilt.core.tree import DirectoryEntry, Entry, FileEntry, SymlinkEntry
from prebuilt.oci import tar_header as tar
from prebuilt.oci.compression import PIECE_BYTES, ChunkReader, Compressor, decompress, layer_media_type, new_compressor
from prebuilt.oci.merged_tree import merge_entries
from prebuilt.oci.repository import CHUNK_BYTES, Advance

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_PREFETCHED_ENTRIES = 64
"""Enough to keep a few compilers of bytecode busy; what they made and nobody took yet is in memory."""


@final
class PieceBuffers:
    """Memory that layers are gathered in, lent to one after another: fresh memory would cost a page fault for each 4 KiB of each.

    Concurrent calls are fine. What was lent once is kept as long as this is.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._spare: list[memoryview] = []

    @contextlib.contextmanager
    def lend(self) -> Iterator[memoryview]:
        """Lend `PIECE_BYTES` of memory, with anything in it."""
        try:
            piece = self._spare.pop()
        except IndexError:
            # Not a bytearray, which is filled with zeros at once: most layers are much smaller than a piece.
            piece = memoryview(mmap(-1, PIECE_BYTES))
        try:
            yield piece
        finally:
            self._spare.append(piece)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLayer:
    """A layer that was written.

    Attributes:
        descriptor: Of the compressed bytes.
        diff_id: Digest of the tar.
        uncompressed_bytes: Size of the tar.
        overlaps: Paths that more than one entry had, sorted. The last entry of each was written.
    """

    descriptor: Descriptor
    diff_id: str
    uncompressed_bytes: int
    overlaps: tuple[str, ...]


def write_layer(
    entries: Sequence[Entry],
    file: SupportsWrite[bytes],
    *,
    compression: Compression,
    expected_bytes: int | None = None,
    buffers: PieceBuffers | None = None,
    advance: Advance = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> WrittenLayer:
    """Write a layer of `entries`, whose paths are relative to the root of the image, to `file`; return what it became.

    Equal trees give equal bytes: sorted, owner 0:0, time 0, modes 0o755, 0o644 and (links) 0o777, parents made where they are
    missing. Contents are streamed, and prefetched 64 entries ahead. Layers can be written from several threads at once: Python's
    lock is free while a chunk is hashed and compressed.

    Args:
        entries: In the order in which packages were installed: of those with one path, the last one is written.
        file: Where to; it is not closed.
        compression: How the layer is compressed.
        expected_bytes: About how large `file` will be; a small layer is compressed harder. The bytes depend on it.
        buffers: Shared by layers that are written after another; None for its own.
        advance: Told of bytes of the uncompressed tar, in all `uncompressed_bytes`.
        check: Called before each entry and chunk; stops the work by raising.

    Raises:
        InvalidValueError: There are no entries, or they do not make a tree: see :func:`~prebuilt.oci.merged_tree.merge_entries`.
        StorageError: A content's length was not its size.
        OSError: `file` could not be written or a content not read; the caller knows where they are.
    """
    if not entries:
        raise InvalidValueError("a layer", "", reason="it has no entries, and no image may have an empty layer")
    tree = merge_entries(entries)
    executables = {entry.path for entry in tree.entries if isinstance(entry, FileEntry) and entry.executable}
    buffers = buffers or PieceBuffers()
    compressor = new_compressor(compression, expected_bytes=expected_bytes)
    with (
        buffers.lend() as piece,
        buffers.lend() as spare,
        _LayerStream(file, compressor, (piece, spare), advance, check) as stream,
    ):
        for entry in _prefetched(tree.entries):
            check()
            _write_entry(entry, stream, executables)
        stream.write(tar.END_OF_ARCHIVE)
        stream.finish()
    return WrittenLayer(
        descriptor=Descriptor(
            media_type=layer_media_type(compression), digest=stream.digest, size=stream.compressed_bytes
        ),
        diff_id=stream.diff_id,
        uncompressed_bytes=stream.uncompressed_bytes,
        overlaps=tree.overlaps,
    )


def _prefetched(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the entries; before each, contents up to 64 entries ahead have been told to get ready."""
    ahead = iter(entries)
    for position, entry in enumerate(entries):
        for coming in islice(ahead, 1 if position else _PREFETCHED_ENTRIES):
            if isinstance(coming, FileEntry):
                coming.content.prefetch()
        yield entry


def _write_entry(entry: Entry, stream: _LayerStream, executables: AbstractSet[str]) -> None:
    if isinstance(entry, FileEntry):
        size = entry.content.size
        stream.write(tar.tar_header(entry.path, tar.REGULAR, mode=0o755 if entry.executable else 0o644, size=size))
        _copy(entry, size, stream)
        stream.write(tar.padding(size))
    elif isinstance(entry, DirectoryEntry):
        stream.write(tar.tar_header(entry.path, tar.DIRECTORY, mode=0o755))
    elif isinstance(entry, SymlinkEntry):
        stream.write(tar.tar_header(entry.path, tar.SYMLINK, mode=0o777, link=entry.target))
    else:
        mode = 0o755 if entry.target in executables else 0o644  # runtimes may set it anew when they make the link
        stream.write(tar.tar_header(entry.path, tar.HARDLINK, mode=mode, link=entry.target))


def _copy(entry: FileEntry, size: int, stream: _LayerStream) -> None:
    """Copy exactly `size` bytes."""
    left = size
    with entry.content.open() as source:
        while left and (data := source.read(min(left, CHUNK_BYTES))):
            stream.write(data)
            left -= len(data)
        is_longer = not left and source.read(1)
    if left or is_longer:
        reason = f"{size} bytes were announced, and {'more' if is_longer else size - left} came"
        raise StorageError(
            "write a layer", at=entry.path, reason=reason, remedy="deploy again; the file changed meanwhile"
        )


class _LayerStream:
    """Bytes of a tar in; gathered into pieces, hashed, compressed, hashed again and written.

    A thread of its own compresses one piece while the caller fills the next: the largest layer is what a bake waits for at its
    end, and this halves its time. Pieces are the same whoever fills them, and so are the bytes that come out.
    """

    def __init__(
        self,
        file: SupportsWrite[bytes],
        compressor: Compressor,
        pieces: tuple[memoryview, memoryview],
        advance: Advance,
        check: Callable[[], None],
    ) -> None:
        self._file, self._compressor, self._advance, self._check = file, compressor, advance, check
        self._diff, self._compressed = hashlib.sha256(), hashlib.sha256()
        self._piece, self._spare = pieces
        self._filled = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compress")
        self._under_way: Future[None] | None = None
        self.uncompressed_bytes = self.compressed_bytes = 0

    def __enter__(self) -> _LayerStream:  # noqa: PYI034 - Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    @property
    def digest(self) -> str:
        return f"sha256:{self._compressed.hexdigest()}"

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._diff.hexdigest()}"

    def write(self, data: bytes) -> None:
        self._check()
        left = memoryview(data)
        while left:
            taken = left[: PIECE_BYTES - self._filled]
            self._piece[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            left = left[len(taken) :]
            if self._filled == PIECE_BYTES:
                self._flush()

    def finish(self) -> None:
        self._flush()
        self._wait()
        self._put(self._compressor.flush())

    def _flush(self) -> None:
        full = self._piece[: self._filled]
        self._diff.update(full)
        self._wait()
        self._under_way = self._thread.submit(self._compress, full)
        self._piece, self._spare = self._spare, self._piece
        self.uncompressed_bytes += self._filled
        self._advance(self._filled)
        self._filled = 0

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _compress(self, piece: memoryview) -> None:
        self._put(self._compressor.compress(piece))

    def _put(self, compressed: bytes) -> None:
        self._compressed.update(compressed)
        self._file.write(compressed)
        self.compressed_bytes += len(compressed)


class LayerMember(NamedTuple):
    """One member of a layer's tar, and its bytes if it is a regular file, to be read before the next member is asked for."""

    info: tarfile.TarInfo
    content: IO[bytes] | None


def read_layer(chunks: Iterator[bytes], media_type: str) -> Iterator[LayerMember]:
    """Yield the members of a layer (gzip, zstd or plain), in order, in bounded memory.

    After the last member the rest of `chunks` is taken, so that whoever checks them against their digest gets to the end.

    Raises:
        InvalidValueError: It is not a layer, or it is damaged.
    """
    pieces = decompress(chunks, media_type)
    try:
        with open_layer_tar(pieces) as archive:
            while (info := archive.next()) is not None:
                yield LayerMember(info, archive.extractfile(info) if info.isreg() else None)
    except tarfile.TarError as error:
        raise InvalidValueError("a layer", media_type, reason=f"it is damaged: {error}") from error
    for _ in pieces:
        pass


class _OnePassTar(tarfile.TarFile):
    """A tar that is read once, and forgets the members that it has passed; tarfile would keep them all."""

    members: list[tarfile.TarInfo]
    _is_at_end = False

    def next(self) -> tarfile.TarInfo | None:
        self.members.clear()
        if self._is_at_end:  # Python 3.10 would look for more, before the start of an archive without members
            return None
        member = super().next()
        self._is_at_end = member is None
        return member


def open_layer_tar(pieces: Iterator[bytes]) -> tarfile.TarFile:
    """Return a tar to be iterated once, in bounded memory, of what :func:`~prebuilt.oci.compression.decompress` yields.

    `pieces` may have a rest after the tar's end; a caller who wants it checked takes it.
    """
    return _OnePassTar.open(fileobj=cast("BinaryIO", ChunkReader(pieces)), mode="r|", bufsize=CHUNK_BYTES)
