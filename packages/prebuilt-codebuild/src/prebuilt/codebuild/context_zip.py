"""The zip archive in which a context travels to CodeBuild: the same files give the same bytes, and none is whole in memory."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prebuilt.core.errors import StorageError
from prebuilt.core.tree import Content, check_tree_path

_CHUNK_BYTES = 1 << 20
_LIMIT = 0xFFFFFFFF  # what 32 bits hold
_SEE_ZIP64 = 0xFFFFFFFF  # stands where a number is, which then is among ZIP64's fields
_MAX_ENTRIES = 0xFFFF
_VERSION, _VERSION_ZIP64, _UNIX = 20, 45, 3
_UTF8_NAMES = 0x800
_DATE, _TIME = (1 << 5) | 1, 0  # 1980-01-01, the first day that there is
_MODE = 0o100644 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    content: Content
    size_bytes: int
    crc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextZip:
    """An archive that is ready to be written.

    Nothing in it is compressed: what is large are packages, which are compressed themselves. So each entry's size and checksum are
    known before its bytes are sent, and any unzip can read it.

    Attributes:
        content_id: 64 hex digits, a function of the names and bytes of the files alone.
    """

    content_id: str
    entries: tuple[_Entry, ...]

    @property
    def size_bytes(self) -> int:
        """Of the whole archive."""
        files = sum(len(_local_header(entry)) + entry.size_bytes for entry in self.entries)
        return files + len(self._directory())

    def chunks(self) -> Iterator[bytes]:
        """Yield the archive; one chunk is in memory at a time.

        Raises:
            StorageError: A file is not what it was when it was looked at first.
        """
        for entry in self.entries:
            yield _local_header(entry)
            yield from _bytes_of(entry)
        yield self._directory()

    def _directory(self) -> bytes:
        records, offset = [], 0
        for entry in self.entries:
            records.append(_directory_record(entry, offset))
            offset += len(_local_header(entry)) + entry.size_bytes
        return b"".join((*records, _end(len(records), sum(map(len, records)), offset)))


def look_at(files: Mapping[str, Content], check: Callable[[], None]) -> ContextZip:
    """Return the archive of `files`, by POSIX name; each is read once for its checksum. `check` raises to stop.

    Raises:
        InvalidValueError: A name leaves the context.
    """
    whole, entries = hashlib.sha256(), []
    for name in sorted(files):
        check_tree_path(name)
        content, digest, crc, size_bytes = files[name], hashlib.sha256(), 0, 0
        with content.open() as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                check()
                digest.update(chunk)
                crc, size_bytes = zlib.crc32(chunk, crc), size_bytes + len(chunk)
        whole.update(f"{digest.hexdigest()} {name}\n".encode())
        entries.append(_Entry(name=name, content=content, size_bytes=size_bytes, crc=crc))
    return ContextZip(content_id=whole.hexdigest(), entries=tuple(entries))


def _bytes_of(entry: _Entry) -> Iterator[bytes]:
    crc, left = 0, entry.size_bytes
    with entry.content.open() as stream:
        while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
            yield chunk
    if left or crc != entry.crc:
        raise StorageError(f"read {entry.name} for a build context", reason="it changed while it was read")


# Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3


def _local_header(entry: _Entry) -> bytes:
    name, size = entry.name.encode(), entry.size_bytes
    extra = struct.pack("<HHQQ", 1, 16, size, size) if size >= _LIMIT else b""
    version = _VERSION_ZIP64 if extra else _VERSION
    held = _in_32_bits(size)
    fields = (version, _UTF8_NAMES, zipfile.ZIP_STORED, _TIME, _DATE, entry.crc, held, held, len(name), len(extra))
    return struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name + extra


def _directory_record(entry: _Entry, offset: int) -> bytes:
    name, size = entry.name.encode(), entry.size_bytes
    wide = [*([size, size] if size >= _LIMIT else []), *([offset] if offset >= _LIMIT else [])]
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = _VERSION_ZIP64 if wide else _VERSION
    held = _in_32_bits(size)
    times = (zipfile.ZIP_STORED, _TIME, _DATE)
    sizes = (entry.crc, held, held, len(name), len(extra))
    place = (0, 0, 0, _MODE, _in_32_bits(offset))  # no comment, first disk, binary
    made_by = (_UNIX << 8) | version
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", made_by, version, _UTF8_NAMES, *times, *sizes, *place) + name + extra


def _in_32_bits(number: int) -> int:
    return number if number < _LIMIT else _SEE_ZIP64


def _end(count: int, size: int, offset: int) -> bytes:
    wide = b""
    if count >= _MAX_ENTRIES or size >= _LIMIT or offset >= _LIMIT:
        version = (_VERSION_ZIP64, _VERSION_ZIP64)
        wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, *version, 0, 0, count, count, size, offset)
        wide += struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
    held = min(count, _MAX_ENTRIES)
    return wide + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, held, held, _in_32_bits(size), _in_32_bits(offset), 0)
