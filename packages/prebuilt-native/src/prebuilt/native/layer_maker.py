"""From a planned layer to a blob in a repository: fetch, install, pack, compress, push."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.build_service import Cancellation
from prebuilt.core.plan import PlannedLayer
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import ImageSpec
from prebuilt.core.storage import storage_errors
from prebuilt.core.tree import DirectoryEntry, Entry
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.installer import PackageInstaller
from prebuilt.lock.virtualenv import virtualenv_entries
from prebuilt.native.catalogue import KnownLayer
from prebuilt.native.owners import Files, label, owned
from prebuilt.oci.growing_blob import GrowingBlob
from prebuilt.oci.layer import PieceBuffers, WrittenLayer, write_layer
from prebuilt.oci.repository import Repository

STREAMED_BYTES = 32 << 20
"""A layer whose packages have this size is pushed while it is written; for smaller ones the line is not idle for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeLayer:
    """A layer that is in the repository now, and the files of its packages."""

    layer: KnownLayer
    files: Files


@dataclass(frozen=True, kw_only=True)
class LayerMaker:
    """Makes the layers of one image and pushes them to its repository. Concurrent calls are fine."""

    spec: ImageSpec
    target: InstallTarget
    installer: PackageInstaller
    repository: Repository
    progress: ImageProgress
    cancellation: Cancellation
    scratch: Path
    buffers: PieceBuffers

    def make(self, layer: PlannedLayer) -> MadeLayer:
        """Make `layer`, push it, and return what is now in the repository."""
        self.cancellation.check()
        self.progress.state(f"layer {layer.name}")
        with storage_errors(f"write layer {layer.name}", self.scratch), ExitStack() as stack:
            files, entries = self._contents(layer, stack)
            blob = stack.enter_context(GrowingBlob(self.scratch))
            if layer.size_bytes >= STREAMED_BYTES:
                written = self._write_and_push(entries, layer, blob)
            else:
                written = self._write(entries, layer, blob, self.cancellation.check)
                self.repository.push_blob(written.descriptor, blob.open, lambda _: self.cancellation.check())
        return MadeLayer(layer=KnownLayer(descriptor=written.descriptor, diff_id=written.diff_id), files=files)

    def _write_and_push(self, entries: list[Entry], layer: PlannedLayer, blob: GrowingBlob) -> WrittenLayer:
        """Push while it is written. A push that fails stops the writing, and the other way round."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="push") as thread:
            pushing = thread.submit(self.repository.push_growing_blob, blob, self.cancellation.check)

            def check() -> None:
                self.cancellation.check()
                if pushing.done():
                    pushing.result()

            try:
                written = self._write(entries, layer, blob, check)
            finally:
                blob.give_up()
            pushing.result()
        return written

    def _write(
        self, entries: list[Entry], layer: PlannedLayer, blob: GrowingBlob, check: Callable[[], None]
    ) -> WrittenLayer:
        written = write_layer(
            entries,
            blob,
            compression=self.spec.compression,
            expected_bytes=layer.size_bytes,
            buffers=self.buffers,
            check=check,
        )
        blob.finish(written.descriptor)
        return written

    def _contents(self, layer: PlannedLayer, stack: ExitStack) -> tuple[Files, list[Entry]]:
        """Return the files of each package, and what the layer is to hold."""
        if layer.kind == "interpreter":
            assert self.spec.base.python is not None  # noqa: S101 - the plan has checked it
            return {}, virtualenv_entries(self.spec.base.python, self.target)
        files: dict[str, frozenset[str]] = {}
        entries: list[Entry] = []
        for package in layer.packages:
            installed = stack.enter_context(
                self.installer.entries(package, advance=self.progress.advance, check=self.cancellation.check)
            )
            files[label(package)] = owned(e.path for e in installed if not isinstance(e, DirectoryEntry))
            entries += installed
        return files, entries
