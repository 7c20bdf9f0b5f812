"""One image from its plan to its tag: find what is there, make what is missing, write config and manifest."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import BaseImageError, CancelledError
from prebuilt.core.plan import PlannedLayer
from prebuilt.core.progress import ImageProgress
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX, ImageSpec
from prebuilt.core.tree import BytesContent
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.installer import PackageInstaller, link_scripts_setting
from prebuilt.native.catalogue import Catalogue, KnownLayer
from prebuilt.native.file_lists import FileLists
from prebuilt.native.layer_maker import LayerMaker, MadeLayer
from prebuilt.native.owners import Files, label, overlaps
from prebuilt.native.workshop import Workbench
from prebuilt.oci.copy import copy_layers
from prebuilt.oci.documents import RepositoryDocuments
from prebuilt.oci.extend import AddedLayer, ExtendedImage, extend_image
from prebuilt.oci.image import ImageConfig, ImageManifest
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import Reference, parse_reference
from prebuilt.oci.repository import Repository


@dataclass(frozen=True, kw_only=True)
class ImageBuild:
    """The work on one request, at a workbench."""

    request: BuildRequest
    progress: ImageProgress
    workbench: Workbench
    settings: Settings

    def run(self) -> Descriptor:
        """Return the descriptor of the pushed manifest."""
        base = ImageManifest.parse(self._read_base_manifest())
        known = self._known_layers()
        lists = self._begin_to_read_lists(known)
        missing = [layer for layer in self.request.plan.layers if layer.key not in known]
        self.progress.add_total(sum(layer.size_bytes for layer in missing))
        copying = self.workbench.once(
            self.target.name, f"layers of {self.spec.base.digest}", partial(self._copy_base_layers, base)
        )
        made = self._make(missing, copying)
        image = self._image(base, {**known, **{key: one.layer for key, one in made.items()}})
        self.target.push_blob(image.config_descriptor, BytesContent(image.config).open)
        self.request.cancellation.check()
        descriptor = image.manifest_descriptor
        self.target.put_manifest(self._reference.identifier, descriptor.media_type, image.manifest)
        self._note_overlaps([*(one.files for one in made.values()), *(reading.result() for reading in lists)])
        return descriptor

    @property
    def spec(self) -> ImageSpec:
        """What is built."""
        return self.request.spec

    @cached_property
    def target(self) -> Repository:
        """Where the image goes."""
        return open_repository(
            self._reference.repository,
            self.request.credentials,
            settings=self.settings,
            check=self.request.cancellation.check,
        )

    @cached_property
    def _reference(self) -> Reference:
        return parse_reference(self.request.reference)

    @cached_property
    def _source(self) -> Repository:
        return open_repository(self.spec.base.repository, settings=self.settings, check=self.request.cancellation.check)

    @cached_property
    def _catalogue(self) -> Catalogue:
        return Catalogue.of(self.spec, self._documents)

    @cached_property
    def _file_lists(self) -> FileLists:
        return FileLists(documents=self._documents)

    @cached_property
    def _documents(self) -> DocumentStore:
        return self.request.documents or RepositoryDocuments(self.target)

    def _known_layers(self) -> dict[str, KnownLayer]:
        """Return the planned layers that the repository has, each asked for, since the catalogue is a hint."""
        entries = self._catalogue.read()
        hinted = {layer.key: entries[layer.key] for layer in self.request.plan.layers if layer.key in entries}
        there = self.workbench.threads.map(self.target.has_blob, [known.descriptor.digest for known in hinted.values()])
        return {key: known for (key, known), is_there in zip(hinted.items(), list(there), strict=True) if is_there}

    def _begin_to_read_lists(self, known: Mapping[str, KnownLayer]) -> list[Future[Files]]:
        """Return the lists of files of layers that need not be made, as they come: there is a list for each bake that made some."""
        ids = sorted({layer.file_list for layer in known.values() if layer.file_list})
        return [self.workbench.threads.submit(self._file_lists.read, list_id) for list_id in ids]

    def _make(self, layers: Sequence[PlannedLayer], copying: Future[None]) -> dict[str, MadeLayer]:
        """Return `layers` once they and the base's are in the repository. What was made is catalogued, come what may."""
        maker = self._maker()
        making = {
            layer.key: self.workbench.once(self.target.name, layer.key, partial(maker.make, layer))
            for layer in _from_both_ends(layers)
        }
        try:
            _wait_for_all([copying, *making.values()], self.request.cancellation)
        finally:
            made = {key: future.result() for key, future in making.items() if _went_well(future)}
            self._catalogue_layers(made)
        return made

    def _catalogue_layers(self, made: Mapping[str, MadeLayer]) -> None:
        files = {package: paths for one in made.values() for package, paths in one.files.items()}
        file_list = self._file_lists.write(files)
        self._catalogue.add(
            {key: replace(one.layer, file_list=file_list) if one.files else one.layer for key, one in made.items()}
        )

    def _get_interpreter(self) -> Path | None:
        """Return a Python to compile with that this machine lacks, if there is one to be got."""
        interpreters = self.request.interpreters
        if interpreters is None:
            return None
        return interpreters.get(self.spec.lock.python_xy, self.progress, self.request.cancellation)

    def _maker(self) -> LayerMaker:
        lock, workbench = self.spec.lock, self.workbench
        target = InstallTarget.of(lock)
        installer = PackageInstaller(
            workbench.files,
            target,
            compiler=workbench.compiler(lock.python_xy, self._get_interpreter) if self.spec.bytecode else None,
            work_dir=workbench.scratch,
            link_scripts=link_scripts_setting(self.settings),
            note=self.progress.note,
        )
        return LayerMaker(
            spec=self.spec,
            target=target,
            installer=installer,
            repository=self.target,
            progress=self.progress,
            cancellation=self.request.cancellation,
            scratch=workbench.scratch,
            buffers=workbench.buffers,
        )

    def _copy_base_layers(self, base: ImageManifest) -> None:
        copy_layers(
            base.layers,
            self._source,
            self.target,
            progress=self.progress,
            cancellation=self.request.cancellation,
            scratch=self.workbench.scratch,
        )

    def _image(self, base: ImageManifest, layers: Mapping[str, KnownLayer]) -> ExtendedImage:
        spec = self.spec
        added = [
            AddedLayer(
                descriptor=layers[planned.key].descriptor,
                diff_id=layers[planned.key].diff_id,
                created_by=f"metaflow-prebuilt: {planned.name}",
            )
            for planned in self.request.plan.layers
        ]
        return extend_image(
            base,
            ImageConfig.parse(self._read_base_blob(base.config)),
            added,
            env=spec.env,
            path_prepend=f"{PREFIX}/bin",
            labels=spec.all_labels,
            annotations=spec.annotations,
        )

    def _read_base_manifest(self) -> bytes:
        base = self.spec.base
        manifest = self._source.get_manifest(base.digest)
        if manifest is None:
            raise BaseImageError(
                "read the base image",
                at=f"{base.repository}@{base.digest}",
                reason="it was there when its digest was looked up, and is gone now",
                remedy="deploy again",
            )
        return manifest.data

    def _read_base_blob(self, descriptor: Descriptor) -> bytes:
        with self._source.open_blob(descriptor) as chunks:
            return b"".join(chunks)

    def _note_overlaps(self, lists: Sequence[Files]) -> None:
        files = {package: paths for each in lists for package, paths in each.items()}
        order = [label(package) for layer in self.request.plan.layers for package in layer.packages]
        for sentence in overlaps(order, files):
            self.progress.note(sentence)


def _from_both_ends(layers: Sequence[PlannedLayer]) -> list[PlannedLayer]:
    """Return the smallest, the largest, the second smallest and so on.

    The largest is what a bake waits for at its end, so it comes early. While it is downloaded processors would be idle: small
    packages are there at once, and have most of the source that must be compiled. The smallest of all, an interpreter on the
    base's Python, is nothing but links.
    """
    left = deque(sorted(layers, key=lambda layer: layer.size_bytes))
    return [left.pop() if position % 2 else left.popleft() for position in range(len(layers))]


def _wait_for_all(futures: Sequence[Future[Any]], cancellation: Cancellation) -> None:
    """Wait until all are done; on the first failure, or Ctrl-C, stop the others, wait for them, and raise it."""
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in futures if future in done and future.exception()), None)
        if failed is not None:
            cancellation.cancel()
            wait(futures)
    except BaseException:  # Ctrl-C: layers under way look at the flag between chunks
        cancellation.cancel()
        wait(futures)
        raise
    errors = [error for future in futures if (error := future.exception())]
    errors.sort(key=lambda error: isinstance(error, CancelledError))  # the cause before those that it stopped
    if errors:
        raise errors[0]


def _went_well(future: Future[MadeLayer]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
