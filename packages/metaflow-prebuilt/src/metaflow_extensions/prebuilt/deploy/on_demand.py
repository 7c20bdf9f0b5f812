"""Parts of the project that a deployment imports when it wants them: one of which everything is baked already needs few."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metaflow_extensions.prebuilt.deploy.backends import Backends, registry_identity
from metaflow_extensions.prebuilt.deploy.requirements import conda_channels
from prebuilt.core.bake import BaseImages
from prebuilt.core.build_service import Cancellation, Interpreters
from prebuilt.core.dockerfile import BuildMaterials, MaterialsSource
from prebuilt.core.documents import DocumentStore, FolderDocuments, LocalFirstDocuments, SharedIfAllowed
from prebuilt.core.lock import Lock
from prebuilt.core.locks import LocalWheels, Locks, Resolver
from prebuilt.core.plugin_calls import called
from prebuilt.core.progress import ImageProgress, Progress
from prebuilt.core.requirements import Requirements
from prebuilt.core.settings import Settings
from prebuilt.core.spec import ImageSpec
from prebuilt.core.storage import cache_dir


@dataclass(frozen=True, kw_only=True)
class ResolverOnDemand:
    """The project's resolver, which is imported when something has to be resolved."""

    settings: Settings
    progress: Progress

    def resolve(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
        """Resolve anew. Concurrent calls are fine."""
        return self._resolver.resolve(requirements, check=check)

    @cached_property
    def _resolver(self) -> Resolver:
        from prebuilt.lock.resolver import LockResolver

        return LockResolver(self.settings, note=self.progress.note)


@dataclass(frozen=True, kw_only=True)
class DocumentsOnDemand:
    """The documents of the chosen registry, or a local folder where it has none; which, is asked when one is wanted."""

    settings: Settings
    progress: Progress
    backends: Backends | None

    def get(self, name: str) -> bytes | None:
        """Return the document."""
        return self._documents.get(name)

    def put(self, name: str, data: bytes) -> None:
        """Keep the document; where the registry does not let us, say that it is not shared."""
        self._documents.put(name, data)

    def local_first(self, *, asks: bool = False) -> DocumentStore:
        """Return the same for what runs here: with what this machine has seen before, it needs no registry, unless it `asks`."""
        if self.backends is None:
            return self
        near = local_documents(self.settings, registry_identity(self.settings))
        return LocalFirstDocuments(near=near, far=self, asks=asks)

    @cached_property
    def _documents(self) -> DocumentStore:
        shared = called(self.backends.registry.documents) if self.backends is not None else None
        if shared is None:
            return local_documents(self.settings)
        return SharedIfAllowed(documents=shared, note=self.progress.note)


@dataclass(frozen=True, kw_only=True)
class MaterialsOnDemand:
    """The project's source of materials for Dockerfiles, which is imported when one is to be built."""

    settings: Settings
    locks: Locks

    def gather(
        self, spec: ImageSpec, progress: ImageProgress, *, check: Callable[[], None]
    ) -> AbstractContextManager[BuildMaterials]:
        """Give the materials for an image of `spec`. Concurrent calls are fine."""
        return self._source.gather(spec, progress, check=check)

    @cached_property
    def _source(self) -> MaterialsSource:
        from prebuilt.lock.stage.materials import LockMaterials

        return LockMaterials(settings=self.settings, locks=self.locks)


@dataclass(frozen=True, kw_only=True)
class InterpretersOnDemand:
    """Pythons to compile bytecode with, of which the source is imported when this machine lacks one."""

    settings: Settings
    locks: Locks

    def can_get(self, python_xy: str, *, check: Callable[[], None] = lambda: None) -> bool:
        """Return whether there is a Python X.Y to be got."""
        return self._source.can_get(python_xy, check=check)

    def get(self, python_xy: str, progress: ImageProgress, cancellation: Cancellation) -> Path:
        """Return the path of a Python X.Y."""
        return self._source.get(python_xy, progress, cancellation)

    @cached_property
    def _source(self) -> Interpreters:
        from prebuilt.lock.conda_interpreters import CondaInterpreters

        return CondaInterpreters(settings=self.settings, locks=self.locks, channels=conda_channels())


def local_documents(settings: Settings, of_registry: str = "") -> DocumentStore:
    """Return the documents of this machine, or its copies of those that one registry has."""
    folder = cache_dir(settings) / "documents"
    return FolderDocuments(folder / f"of-{of_registry}" if of_registry else folder)


def base_images(settings: Settings, documents: DocumentStore, progress: Progress) -> BaseImages:
    """Return what looks base images up."""
    from prebuilt.oci.base import BaseImageLookup

    return BaseImageLookup(settings, documents, local_documents(settings), note=progress.note)


def local_wheels(settings: Settings) -> LocalWheels:
    """Return the wheels that are on this machine alone."""
    from prebuilt.lock.wheelhouse import wheelhouse

    return wheelhouse(settings)
