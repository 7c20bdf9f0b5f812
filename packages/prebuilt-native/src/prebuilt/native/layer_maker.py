"""From a planned layer to a blob in a repository: fetch, install, pack, compress, push."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from prebuilt.core.build_service import Cancellation
from prebuilt.core.plan import PlannedLayer
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import ImageSpec
from prebuilt.core.storage import storage_errors
from prebuilt.core.tree import DirectoryEntry, Entry, PathContent
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.installer import PackageInstaller
from prebuilt.lock.virtualenv import virtualenv_entries
from prebuilt.native.catalogue import KnownLayer
from prebuilt.native.owners import Owners, label
from prebuilt.oci.layer import write_layer
from prebuilt.oci.repository import Repository


@dataclass(frozen=True, kw_only=True)
class LayerMaker:
    """Makes the layers of one image and pushes them to its repository. Concurrent calls are fine."""

    spec: ImageSpec
    target: InstallTarget
    installer: PackageInstaller
    repository: Repository
    progress: ImageProgress
    cancellation: Cancellation
    owners: Owners
    scratch: Path

    def make(self, layer: PlannedLayer) -> KnownLayer:
        """Make `layer`, push it, and return what is now in the repository."""
        self.cancellation.check()
        self.progress.state(f"layer {layer.name}")
        with storage_errors(f"write layer {layer.name}", self.scratch), ExitStack() as stack:
            entries = self._entries(layer, stack)
            self.scratch.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.NamedTemporaryFile(dir=self.scratch, prefix="layer-"))
            written = write_layer(
                entries,
                cast("BinaryIO", file),
                compression=self.spec.compression,
                expected_bytes=layer.size_bytes,
                check=self.cancellation.check,
            )
            file.flush()
            self.repository.push_blob(
                written.descriptor, PathContent(Path(file.name)).open, lambda _: self.cancellation.check()
            )
        return KnownLayer(descriptor=written.descriptor, diff_id=written.diff_id)

    def _entries(self, layer: PlannedLayer, stack: ExitStack) -> list[Entry]:
        if layer.kind == "interpreter":
            assert self.spec.base.python is not None  # noqa: S101 - the plan has checked it
            return virtualenv_entries(self.spec.base.python, self.target)
        entries: list[Entry] = []
        for package in layer.packages:
            installed = stack.enter_context(
                self.installer.entries(package, advance=self.progress.advance, check=self.cancellation.check)
            )
            self.owners.add(label(package), [e.path for e in installed if not isinstance(e, DirectoryEntry)])
            entries += installed
        return entries
