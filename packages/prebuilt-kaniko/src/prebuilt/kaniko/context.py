"""The build context on its way to the pod: packed here, and given to the cluster or to a bucket."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.context_archive import context_archive
from prebuilt.core.storage import scratch_folder, storage_errors
from prebuilt.core.tree import Content

CONTEXT_FILE = "context.tar.gz"
MAX_IN_CLUSTER_BYTES = 900_000
"""Packed contexts up to this size go as a ConfigMap, which holds 1 MiB; less where certificate authorities go along.

Source: https://kubernetes.io/docs/concepts/configuration/configmap/#motivation
"""

_LEVEL = 6
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedContext:
    """A context as one file on disk: ``tar.gz``, the same bytes for the same files.

    Attributes:
        path: Of the file.
        sha256: Of its bytes: 64 hex digits.
        size_bytes: Its length.
    """

    path: Path
    sha256: str
    size_bytes: int


@contextlib.contextmanager
def packed_context(
    dockerfile: str, context: Mapping[str, Content], check: Callable[[], None]
) -> Iterator[PackedContext]:
    """Give the packed context; its file is there inside the ``with`` only. `check` raises to stop.

    Raises:
        StorageError: There is no space for it, or a file changed meanwhile.
    """
    with scratch_folder("prebuilt-kaniko-") as folder:
        path = folder / CONTEXT_FILE
        with (
            storage_errors("pack a build context", path, is_temporary=True),
            path.open("wb") as file,
            # No name and no time in its header: neither is part of what is built.
            gzip.GzipFile("", "wb", compresslevel=_LEVEL, fileobj=file, mtime=0) as packed,
        ):
            for chunk in context_archive(dockerfile, context):
                check()
                packed.write(chunk)
        yield PackedContext(path=path, sha256=_sha256(path), size_bytes=path.stat().st_size)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
