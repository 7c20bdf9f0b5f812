"""A repository: manifests by tag or digest, blobs by digest. Registries over HTTP and image layouts on disk are both one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from prebuilt.core.descriptor import Descriptor

if TYPE_CHECKING:
    from prebuilt.oci.growing_blob import GrowingBlob

CHUNK_BYTES = 1 << 20
"""Content moves in pieces of at most this size: large enough that Python's share, and its lock, does not matter."""

Advance = Callable[[int], None]
"""Told how many bytes more were moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One manifest or index as it is stored: its descriptor and its bytes, which match."""

    descriptor: Descriptor
    data: bytes


class Repository(Protocol):
    """One repository. Concurrent calls from threads are fine. Every byte that comes out was checked against its digest.

    Raises:
        RegistryError: From every method: the place could not be asked, or refused. Absence is None or False, never an error.
        DigestMismatchError: From every method that reads: what came is not what its digest says.
    """

    @property
    def name(self) -> str:
        """What :func:`open_repository` opens: ``host[:port]/repository``, or ``oci:/folder``."""

    def resolve(self, reference: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest (one HEAD), or None if it is not there."""

    def get_manifest(self, reference: str) -> Manifest | None:
        """Return the manifest or index that a tag or digest names, or None if it is not there."""

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> Descriptor:
        """Store a manifest under a tag or its digest. Its blobs must be there already."""

    def has_blob(self, digest: str) -> bool:
        """Return whether the blob is there."""

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Give the blob as chunks of at most 1 MiB. The last chunk comes only after size and digest were checked.

        Broken downloads are resumed with ``Range`` where the place allows it.
        """

    def push_blob(
        self, descriptor: Descriptor, source: Callable[[], BinaryIO], advance: Advance = lambda _: None
    ) -> None:
        """Store a blob unless it is there. `source` opens its bytes from the start; it is called again for each retry."""

    def push_growing_blob(self, blob: GrowingBlob, check: Callable[[], None] = lambda: None) -> None:
        """Store a blob that another thread writes meanwhile, if that can be; return once it is stored.

        Args:
            blob: What is written.
            check: Called between pieces; stops the push by raising.

        Raises:
            CancelledError: The blob will not be finished.
        """

    def mount_blob(self, descriptor: Descriptor, source: str) -> bool:
        """Link a blob from the repository called `source` if that is in the same place; return whether it is here now."""
