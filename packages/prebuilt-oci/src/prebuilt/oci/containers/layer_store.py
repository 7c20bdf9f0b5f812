"""The layer store: unpacked layers, each once, shared by all images, runs and processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import ContainerError, DigestMismatchError, InvalidValueError, StorageError
from prebuilt.core.storage import storage_errors
from prebuilt.oci.containers.image import ImageLayer
from prebuilt.oci.containers.lock_file import locked, taken
from prebuilt.oci.containers.scratch import remove_tree

if TYPE_CHECKING:
    from prebuilt.oci.repository import Repository

_NAME_LENGTH = 24  # names of 127 layers must fit into one page, that of a mount's options; 96 bits tell them apart
_KEPT_DAYS = 30  # no run takes this long
_WORKERS = 4  # hashing and decompressing leave Python's lock, writing small files does not

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LayerStore:
    """A folder with one folder for each unpacked layer, named by the start of its diff_id.

    A layer is unpacked beside its place, checked against its diff_id, and renamed: what has its name is whole. Processes that want
    the same layer wait for the one that came first. The time of its lock file is that of the last run that wanted it; what no run
    wanted for 30 days is removed when something new is unpacked.
    """

    folder: Path

    def ensure(self, layers: Sequence[ImageLayer], open_repository: Callable[[], Repository]) -> list[Path]:
        """Return the folders of `layers`, in their order; those that are missing are unpacked from the repository.

        Ctrl-C, like the first failure, ends the unpacking of all layers at their next piece.

        Raises:
            RegistryError: A layer could not be read.
            DigestMismatchError: A layer is damaged.
            ContainerError: A layer holds what it must not.
            StorageError: The disk is full or not writable, or cannot hold what layers need.
        """
        places = [self.place(layer.diff_id) for layer in layers]
        with storage_errors("use unpacked layers", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for place in places:
                with contextlib.suppress(PermissionError):  # of another user, who shares the cache
                    _lock_path(place).touch(mode=0o600)
        missing = {place: layer for place, layer in zip(places, layers, strict=True) if not place.is_dir()}
        if missing:
            repository, cancellation = open_repository(), Cancellation()
            with ThreadPoolExecutor(max_workers=min(_WORKERS, len(missing)), thread_name_prefix="unpack") as pool:
                try:
                    done = [
                        pool.submit(self._unpack, place, layer, repository, cancellation)
                        for place, layer in missing.items()
                    ]
                    for future in done:
                        future.result()
                except BaseException:
                    cancellation.cancel()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            self._remove_unused()
        return places

    def place(self, diff_id: str) -> Path:
        """Return where the layer is once it is unpacked."""
        return self.folder / diff_id.removeprefix("sha256:")[:_NAME_LENGTH]

    def _unpack(self, place: Path, layer: ImageLayer, repository: Repository, cancellation: Cancellation) -> None:
        with locked(_lock_path(place)):
            cancellation.check()  # whoever held the lock may have been stopped as well
            if place.is_dir():  # another process was first
                return
            partial = place.with_suffix(".partial")
            remove_tree(partial)  # of a process that was killed
            try:
                self._write(partial, layer, repository, cancellation)
                with storage_errors("unpack a layer", self.folder):
                    partial.rename(place)
            except BaseException:
                remove_tree(partial)
                raise

    def _remove_unused(self) -> None:
        with storage_errors("remove unpacked layers that are not used any more", self.folder):
            for lock in self.folder.glob("*.lock"):
                place, partial = lock.with_suffix(""), lock.with_suffix(".partial")
                if not _is_unused(lock) or not place.is_dir():
                    continue
                with taken(lock) as is_taken:
                    if is_taken and _is_unused(lock):
                        _log.info("%s was not used for %d days and is removed", place, _KEPT_DAYS)
                        place.rename(partial)  # so that what has its name is whole, come what may
                        remove_tree(partial)

    def _write(self, partial: Path, layer: ImageLayer, repository: Repository, cancellation: Cancellation) -> None:
        # Slow to load, and not needed once all is unpacked.
        from prebuilt.oci.compression import decompress
        from prebuilt.oci.containers.unpacking import unpack_layer
        from prebuilt.oci.layer import open_layer_tar

        what, digest = f"unpack the layer {layer.descriptor.digest}", hashlib.sha256()
        with _explained(what, self.folder), repository.open_blob(layer.descriptor) as chunks:
            partial.mkdir()
            plain = decompress(chunks, layer.descriptor.media_type)
            pieces = _hashed(plain, digest.update, cancellation)
            with open_layer_tar(pieces) as archive:
                unpack_layer(archive, str(partial))
            for _ in pieces:  # padding; and only at its end the blob is known to be what its digest says
                pass
        actual = f"sha256:{digest.hexdigest()}"
        if actual != layer.diff_id:
            raise DigestMismatchError(
                what, at=repository.name, expected=layer.diff_id, actual=actual, remedy="build the image again"
            )


def _lock_path(place: Path) -> Path:
    return place.with_suffix(".lock")


def _is_unused(lock: Path) -> bool:
    return time.time() - lock.stat().st_mtime > _KEPT_DAYS * 24 * 3600


def _hashed(pieces: Iterator[bytes], update: Callable[[bytes], None], cancellation: Cancellation) -> Iterator[bytes]:
    for piece in pieces:
        cancellation.check()
        update(piece)
        yield piece


@contextlib.contextmanager
def _explained(tried: str, folder: Path) -> Iterator[None]:
    try:
        with storage_errors(tried, folder):
            yield
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in {errno.ENOTSUP, errno.EPERM}:
            raise StorageError(
                tried,
                at=str(folder),
                reason=f"its file system cannot hold whiteouts or extended attributes ({error.reason})",
                remedy="set METAFLOW_PREBUILT_CACHE_DIR to a folder on a local disk (ext4, xfs, btrfs)",
            ) from cause
        raise
    except (tarfile.TarError, InvalidValueError) as error:
        raise ContainerError(tried, reason=f"it is damaged: {error}", remedy="build the image again") from error
