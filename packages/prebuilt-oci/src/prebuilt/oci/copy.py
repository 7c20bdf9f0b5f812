"""Copying layers between repositories: not at all where they are there, by a mount within a registry, else as a stream."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from prebuilt.core.build_service import Cancellation
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import CancelledError
from prebuilt.core.progress import ImageProgress
from prebuilt.core.storage import storage_errors
from prebuilt.oci.compression import ChunkReader
from prebuilt.oci.repository import Repository

_AT_ONCE = 4
"""Layers that are copied at the same time: enough to fill a line whose two ends are slow to answer."""


def copy_layers(
    descriptors: Sequence[Descriptor],
    source: Repository,
    target: Repository,
    *,
    progress: ImageProgress,
    cancellation: Cancellation,
    scratch: Path,
) -> None:
    """Have every layer of `source` that `descriptors` names in `target`; equal ones are copied once, largest first.

    Layers are never unpacked and never whole in memory. Only those that have to move are announced to `progress`. A layer
    whose upload needs its bytes more than once is kept in the folder `scratch` meanwhile, which is made if it is not there.

    Raises:
        RegistryError: A layer could not be read or written; the others were stopped.
        DigestMismatchError: What `source` gave is not what its digest says; `target` did not keep it.
        CancelledError: `cancellation` was raised.
        StorageError: `scratch` is full or not writable.
    """
    if source.name == target.name:
        return
    wanted = sorted({one.digest: one for one in descriptors}.values(), key=lambda one: (-one.size, one.digest))
    stopped = threading.Event()

    def check() -> None:
        cancellation.check()
        if stopped.is_set():
            raise CancelledError("copy layers", reason="another layer failed")

    def copy(descriptor: Descriptor) -> None:
        try:
            _copy(descriptor, source, target, progress, check, scratch)
        except BaseException:
            stopped.set()  # here, before this thread takes the next one
            raise

    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="copy-layers") as pool:
        try:
            copies = [pool.submit(copy, one) for one in wanted]
            done, _ = wait(copies, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()  # also on Ctrl-C; where all went well nobody looks any more
    errors = [error for copy in (*done, *copies) if (error := copy.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])


def _copy(
    descriptor: Descriptor,
    source: Repository,
    target: Repository,
    progress: ImageProgress,
    check: Callable[[], None],
    scratch: Path,
) -> None:
    check()
    if target.has_blob(descriptor.digest) or target.mount_blob(descriptor, source.name):
        return
    progress.add_total(descriptor.size)

    def advance(size_bytes: int) -> None:
        check()
        progress.advance(size_bytes)

    with ExitStack() as stack:
        relay = _Relay(source, descriptor, check, scratch, stack)
        target.push_blob(descriptor, relay.open, advance)


class _Relay:
    """The bytes of one blob of another repository, to be opened as often as an upload needs.

    The first time they come straight from there; from the second time on from a temporary file, so that an upload in many
    chunks, or tried again, does not download anew each time. The file is not where temporary files usually are: that is memory on many
    machines, and a layer may have gigabytes.
    """

    def __init__(
        self, source: Repository, descriptor: Descriptor, check: Callable[[], None], scratch: Path, stack: ExitStack
    ) -> None:
        self._source, self._descriptor, self._check = source, descriptor, check
        self._scratch, self._stack = scratch, stack
        self._opened = 0
        self._file: Path | None = None

    def open(self) -> BinaryIO:
        self._opened += 1
        if self._opened == 1:
            return cast("BinaryIO", _BlobStream(self._source, self._descriptor))
        if self._file is None:
            self._file = self._spool()
        return self._file.open("rb")

    def _spool(self) -> Path:
        with storage_errors(f"keep layer {self._descriptor.digest}", self._scratch):
            self._scratch.mkdir(parents=True, exist_ok=True)
            made = tempfile.NamedTemporaryFile(dir=self._scratch, prefix="layer-")  # noqa: SIM115 - it is entered
            file = self._stack.enter_context(made)
            with self._source.open_blob(self._descriptor) as chunks:
                for chunk in chunks:
                    self._check()
                    file.write(chunk)
            file.flush()
        return Path(file.name)


class _BlobStream(ChunkReader):
    """A blob as a file; closing it ends the download."""

    def __init__(self, source: Repository, descriptor: Descriptor) -> None:
        self._stack = ExitStack()
        super().__init__(self._stack.enter_context(source.open_blob(descriptor)))

    def close(self) -> None:
        self._stack.close()
        super().close()
