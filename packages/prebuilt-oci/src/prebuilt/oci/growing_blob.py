"""A blob that can be read, and so pushed, while it is still being written."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast, final

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import CancelledError
from prebuilt.oci.repository import CHUNK_BYTES


@final
class GrowingBlob:
    """A temporary file that one thread writes; others read it from the start and wait for what is not there yet.

    Use it as a context: the file is gone afterwards, and whoever still waits for more gets a :class:`CancelledError`.
    """

    def __init__(self, folder: Path) -> None:
        """Make an empty file in `folder`, which is made too.

        Raises:
            OSError: It cannot be made; the caller knows where.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.NamedTemporaryFile(dir=folder, prefix="layer-")  # noqa: SIM115 - closed at the end of the context
        self._changed = threading.Condition()
        self._size = 0
        self._descriptor: Descriptor | None = None
        self._is_given_up = False

    def __enter__(self) -> GrowingBlob:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._file.write(data)
        self._file.flush()
        with self._changed:
            self._size += len(data)
            self._changed.notify_all()

    def finish(self, descriptor: Descriptor) -> None:
        """Say that all is written, and what it became."""
        with self._changed:
            self._descriptor = descriptor
            self._changed.notify_all()

    def give_up(self) -> None:
        """Say that no more will come. Nothing changes for a blob that is finished."""
        with self._changed:
            self._is_given_up = self._descriptor is None
            self._changed.notify_all()

    def wait_for_some(self) -> None:
        """Wait until there is something to read.

        Raises:
            CancelledError: There will be nothing.
        """
        self._wait(more_than=0)

    def wait_for_all(self) -> Descriptor:
        """Wait until it is finished; return its descriptor.

        Raises:
            CancelledError: It will not be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._descriptor or self._is_given_up)
            if self._descriptor is None:
                raise _given_up()
            return self._descriptor

    def pieces(self) -> Iterator[bytes]:
        """Yield all bytes from the start, at most 1 MiB at a time, as they come.

        Raises:
            CancelledError: The rest will not come.
        """
        at = 0
        while (there := self._wait(more_than=at)) > at:
            while at < there:
                piece = os.pread(self._file.fileno(), min(CHUNK_BYTES, there - at), at)
                at += len(piece)
                yield piece

    def open(self) -> BinaryIO:
        """Open the finished file."""
        return cast("BinaryIO", Path(self._file.name).open("rb"))

    def _wait(self, *, more_than: int) -> int:
        """Return how many bytes are there, once they are more or all."""
        with self._changed:
            self._changed.wait_for(lambda: self._size > more_than or self._descriptor or self._is_given_up)
            if self._is_given_up:
                raise _given_up()
            return self._size


def _given_up() -> CancelledError:
    return CancelledError("push a blob while it is written", reason="it was not finished")
