"""A zip archive whose members are contents: nothing is unpacked to disk, and a large member is never whole in memory."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast, final

from prebuilt.core.errors import PackageError

_LOCAL_HEADER = struct.Struct("<26xHH")  # Source: APPNOTE.TXT 6.3.10, section 4.3.7: lengths of name and extra field
_WHOLE_BYTES = 1 << 20
_READ_BYTES = 1 << 18  # compressed bytes at a time: both these and what becomes of them stay in a processor's own cache
_ENCRYPTED = 0x1


@final
class ZipArchive:
    """An open zip file. Members may be read from any thread, each with its own position, until it is closed."""

    def __init__(self, path: Path) -> None:
        """Read the table of contents of the file at `path`.

        Raises:
            PackageError: It is not a zip file.
        """
        self.path = path
        self._file = path.open("rb")
        try:
            with zipfile.ZipFile(self._file) as archive:
                self._infos = archive.infolist()
        except zipfile.BadZipFile as error:
            self._file.close()
            raise PackageError(f"open {path.name}", reason=f"it is damaged: {error}") from error

    def __enter__(self) -> ZipArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; contents cannot be opened any more."""
        self._file.close()

    def members(self) -> Iterator[ZipMember]:
        """Yield the files (not the directories), in the order of the archive."""
        for info in self._infos:
            if not info.is_dir():
                yield ZipMember(archive=self, info=info)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset` on.

        Raises:
            PackageError: The file ends before.
        """
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise PackageError(f"read {self.path.name}", reason="the file ends before its table of contents says")
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember:
    """One file in an archive, as a :class:`prebuilt.core.tree.Content`. Its checksum is verified as it is read."""

    archive: ZipArchive
    info: zipfile.ZipInfo

    @property
    def name(self) -> str:
        """Its path in the archive."""
        return self.info.filename

    @property
    def is_executable(self) -> bool:
        """Whether its Unix mode has an execute bit; never for archives made elsewhere."""
        return bool((self.info.external_attr >> 16) & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH))

    @property
    def size(self) -> int:
        """Bytes once inflated."""
        return self.info.file_size

    def open(self) -> BinaryIO:
        """Return a stream of the inflated bytes. Of a large member it gives what it has, which may be less than was asked for.

        Raises:
            PackageError: The member is encrypted, uses a rare compression, or (also while reading) is damaged.
        """
        stream = _MemberStream(self)
        if self.size <= _WHOLE_BYTES:
            return io.BytesIO(stream.readall())
        return cast("BinaryIO", stream)

    def read(self) -> bytes:
        """Return all the bytes; for members that are known to be small."""
        with self.open() as stream:
            return stream.read()

    def prefetch(self) -> None:
        """Nothing to start: inflating is faster than what waits for it."""

    def damaged(self, reason: str) -> PackageError:
        """Return the error that says so."""
        return PackageError(f"unpack {self.name} of {self.archive.path.name}", reason=reason)


class _MemberStream(io.RawIOBase):
    """Inflates one member with bounded memory and checks size and CRC at its end."""

    def __init__(self, member: ZipMember) -> None:
        from isal import igzip_lib, isal_zlib

        info = member.info
        if info.flag_bits & _ENCRYPTED:
            raise member.damaged("it is encrypted")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise member.damaged(f"compression method {info.compress_type} is neither stored nor deflate")
        self._member = member
        self._crc32 = isal_zlib.crc32
        self._error = cast("type[Exception]", igzip_lib.IsalError)  # its stub calls it an instance
        self._inflater = isal_zlib.decompressobj(wbits=-15) if info.compress_type == zipfile.ZIP_DEFLATED else None
        header = member.archive.read_at(info.header_offset, 30)
        self._offset = info.header_offset + 30 + sum(_LOCAL_HEADER.unpack(header))
        self._compressed_left = info.compress_size
        self._left = info.file_size
        self._crc = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Return some bytes, without the copy that a buffer would cost."""
        return self.readall() if size is None or size < 0 else self._some(size)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._some(self._left), b""))

    def _some(self, limit: int) -> bytes:
        if self._left == 0 or limit == 0:
            if self._left == 0 and self._crc != self._member.info.CRC:
                raise self._member.damaged("its checksum is wrong")
            return b""
        try:
            data = self._inflated(min(limit, self._left))
        except self._error as error:
            raise self._member.damaged(str(error)) from error
        if not data:
            raise self._member.damaged(f"it ends {self._left} bytes early")
        self._crc = self._crc32(data, self._crc)
        self._left -= len(data)
        return data

    def _inflated(self, limit: int) -> bytes:
        if self._inflater is None:
            return self._compressed(limit)
        while True:
            source = self._inflater.unconsumed_tail or self._compressed(_READ_BYTES)
            data: bytes = self._inflater.decompress(source, limit)
            if data or not source:
                return data

    def _compressed(self, limit: int) -> bytes:
        size = min(limit, self._compressed_left)
        data = self._member.archive.read_at(self._offset, size) if size else b""
        self._offset += size
        self._compressed_left -= size
        return data
