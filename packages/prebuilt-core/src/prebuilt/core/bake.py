"""The bake: requirements of all steps in, digests of images out. Equal things are done once, different things at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from prebuilt.core.build_service import BuildRequest, Cancellation, DockerBuildService, Interpreters
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.dockerfile import MaterialsSource
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import BakeError, BaseImageError, BuildError, CancelledError, InvalidValueError, PrebuiltError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.lock import Lock
from prebuilt.core.locks import LocalWheels, Locks, Resolver
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.plugin_calls import called
from prebuilt.core.progress import ImageProgress, Progress
from prebuilt.core.requirements import Requirements
from prebuilt.core.spec import BaseImage, Compression, ImageSpec

K = TypeVar("K")
V = TypeVar("V")

_LOOK_UP_S = 0.2  # the system may give Ctrl-C to another thread: that does not wake the main one, which must handle it


class BaseImages(Protocol):
    """Looks base images up. Concurrent calls are fine."""

    def get(self, reference: str, platform: Platform, *, check: Callable[[], None] = lambda: None) -> BaseImage:
        """Return what `reference` is now, pinned to its digest for `platform`; `check` is called now and then, and raises to stop.

        Raises:
            BaseImageError: It is absent, for other platforms only, or no task could run in it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StepImage:
    """One step that wants an image: its requirements (with the platform as the only fact of their target) and its base."""

    step: str
    requirements: Requirements
    base_image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BakedImage:
    """An image that tasks can run in.

    Attributes:
        reference: What to pull: ``repository@sha256:…``, or the tag where the digest cannot be known.
        descriptor: Of its manifest; None where the registry cannot be asked, and the builder knows its digest at most.
        spec: What it was built from.
        pull_config: Attributes for the compute decorator.
        reused: Whether it was there already.
    """

    reference: str
    descriptor: Descriptor | None
    spec: ImageSpec
    pull_config: Mapping[str, object]
    reused: bool


@dataclass(frozen=True, kw_only=True)
class Baker:
    """Everything that a bake needs; :meth:`bake` may be called more than once.

    Attributes:
        documents: Where locks are kept; the registry's own, or a local folder where it has none.
        refresh: Resolve anew even where a lock is kept, and keep the new one.
        reuse: Whether an image that the registry already has is taken (``METAFLOW_PREBUILT_REGISTRY_CACHE``).
        has_bytecode: Says whether the builder can make bytecode for a Python X.Y as this machine is.
        interpreters: Where a Python comes from for which it cannot; None: nowhere, and its images have no bytecode.
        wheels: Where this machine has wheels that no URL serves; see :class:`~prebuilt.core.locks.Locks`.
        materials: Gathers what the build stage of a Dockerfile needs; None where the builder takes specs.
    """

    resolver: Resolver
    bases: BaseImages
    registry: ImageRegistry
    builder: DockerBuildService
    documents: DocumentStore
    progress: Progress
    compression: Compression = "zstd"
    workers: int = 8
    refresh: bool = False
    reuse: bool = True
    has_bytecode: Callable[[str], bool] = lambda _: True
    interpreters: Interpreters | None = None
    materials: MaterialsSource | None = None
    wheels: LocalWheels | None = None

    def bake(self, steps: Sequence[StepImage]) -> dict[str, BakedImage]:
        """Return the image of each step, by step name.

        Raises:
            BakeError: At least one image failed. The others were stopped; what was pushed stays and is reused.
        """
        places = {step.step: (step.base_image, step.requirements.target.platform) for step in steps}
        bases = self._each(_titles(places), lambda place, stop: self.bases.get(*place, check=stop.check))
        wanted = {step.step: step.requirements.on(bases[places[step.step]]) for step in steps}
        by_req_id = {requirements.req_id: requirements for requirements in wanted.values()}
        kept = Locks(
            resolver=_PreparedResolver(self.resolver, self.builder),
            documents=self.documents,
            progress=self.progress,
            refresh=self.refresh,
            wheels=self.wheels,
        )
        locks = self._each(
            _titles({step: requirements.req_id for step, requirements in wanted.items()}),
            lambda req_id, stop: kept.get(by_req_id[req_id], check=stop.check),
        )
        bytecode = self._each(
            _titles({step: locks[requirements.req_id].python_xy for step, requirements in wanted.items()}),
            self._makes_bytecode,
        )
        specs = {
            step: self._spec(lock, bases[places[step]], bytecode=bytecode[lock.python_xy])
            for step, lock in ((step, locks[requirements.req_id]) for step, requirements in wanted.items())
        }
        by_full_id = {spec.full_id: spec for spec in specs.values()}
        titles = _titles({step: spec.full_id for step, spec in specs.items()})
        images = self._each(titles, lambda full_id, stop: self._image(by_full_id[full_id], titles[full_id], stop))
        return {step: images[spec.full_id] for step, spec in specs.items()}

    def _makes_bytecode(self, python_xy: str, cancellation: Cancellation) -> bool:
        """Return whether images with that Python get bytecode: wherever it is to be had, so that all machines agree on what they are."""
        if called(self.has_bytecode, python_xy):
            return True
        return self.interpreters is not None and self.interpreters.can_get(python_xy, check=cancellation.check)

    def _spec(self, lock: Lock, base: BaseImage, *, bytecode: bool) -> ImageSpec:
        return ImageSpec(
            lock=lock,
            base=base,
            bytecode=bytecode,
            compression=self.compression,
            variant=called(self.builder.image_identity_suffix),
        )

    def _image(self, spec: ImageSpec, title: str, cancellation: Cancellation) -> BakedImage:
        progress = self.progress.image(title)
        try:
            return self._ensure(spec, progress, cancellation)
        except BaseException as error:
            progress.failed(_in_short(error))
            raise

    def _ensure(self, spec: ImageSpec, progress: ImageProgress, cancellation: Cancellation) -> BakedImage:
        registry, tag = self.registry, called(self.registry.push_tag, spec.env_id)
        resolved_on = f"{spec.lock.resolved_at:%Y-%m-%d}"
        if self.reuse:
            there = called(registry.resolve, tag)
            if there is not None or (_asks_otherwise(registry) and called(registry.image_exists, tag)):
                baked = self._baked(spec, there, reused=True)
                progress.done(f"{len(spec.lock.packages)} packages, locked {resolved_on}: image is there")
                return baked
        progress.state("building")
        published = called(registry.push_credentials) or {}  # outside ones may end without a return
        request = BuildRequest(
            spec=spec,
            plan=plan_layers(spec),
            reference=tag,
            credentials=_credentials(registry, tag, published),
            push_credentials=published,
            documents=called(registry.documents),
            materials=self.materials,
            interpreters=self.interpreters,
            cancellation=cancellation,
        )
        try:
            built = called(self.builder.build, request, progress)
        except CancelledError:
            raise
        except PrebuiltError as error:
            meanwhile = self._meanwhile(spec, tag)
            if meanwhile is None:
                raise
            progress.note(
                f"the image is there by now, and is used, though this build of it failed: {error.tried}: {error.reason}"
            )
            baked = self._baked(spec, meanwhile, reused=True)
            progress.done(f"{len(spec.lock.packages)} packages, locked {resolved_on}: image is there")
            return baked
        served = called(registry.resolve, tag)
        if built is not None and served is not None and not self._is_what_was_built(spec, tag, built, served):
            raise BuildError(
                f"check the image of {spec.full_id}",
                at=tag,
                reason=f"{_digest_of(built)} was pushed, the registry serves {served.digest}",
                remedy="deploy again; if it happens again, something else writes to this repository",
            )
        if served is None:
            called(registry.check_pull, tag)  # what the registry was pushed to and does not have, nobody can pull
        baked = self._baked(spec, served or built, reused=False)
        progress.done(f"{len(spec.lock.packages)} packages, locked {resolved_on}: image pushed")
        return baked

    def _meanwhile(self, spec: ImageSpec, tag: str) -> Descriptor | None:
        """Return the image that another deploy has pushed since we looked; None if there is none, or it cannot be told.

        Where tags are immutable a builder whose images are not the same each time is refused then. Without `reuse` nobody looked.
        """
        if not self.reuse:
            return None
        try:
            there = called(self.registry.resolve, tag)
            return there if there is not None and self._is_of(spec, tag, there) else None
        except PrebuiltError:  # why the build failed says more
            return None

    def _is_what_was_built(self, spec: ImageSpec, tag: str, built: Descriptor | str, served: Descriptor) -> bool:
        """Return whether the registry serves what was built, or what another deploy has built from the same."""
        return served.digest == _digest_of(built) or self._is_of(spec, tag, served)

    def _is_of(self, spec: ImageSpec, tag: str, served: Descriptor) -> bool:
        """Return whether what is served says that it was built from `spec`: another deploy may have pushed it by another builder."""
        try:
            labels = called(self.registry.labels, pinned(tag, served.digest), spec.base.platform)
        except (BaseImageError, InvalidValueError):  # it is for another platform, or no image at all
            return False
        return spec.identity_labels.items() <= labels.items()

    def _baked(self, spec: ImageSpec, found: Descriptor | str | None, *, reused: bool) -> BakedImage:
        """Return the image by what is known of its manifest: a descriptor, its digest, or nothing."""
        tag = called(self.registry.pull_tag, spec.env_id)
        descriptor = found if isinstance(found, Descriptor) else None
        reference = pinned(tag, _digest_of(found)) if found else tag
        if tag != called(self.registry.push_tag, spec.env_id):
            # Metaflow would wait without end for a task whose image is not there.
            called(self.registry.check_pull, reference)
        return BakedImage(
            reference=reference,
            descriptor=descriptor,
            spec=spec,
            pull_config=called(self.registry.pull_config, reference) or {},
            reused=reused,
        )

    def _each(self, work: Mapping[K, str], do: Callable[[K, Cancellation], V]) -> dict[K, V]:
        """Do `do` for each key, at most `workers` at once; `work` gives the steps that a key is for."""
        cancellation = Cancellation()
        failures: dict[str, BaseException] = {}
        futures: dict[Future[V], K] = {}
        with ThreadPoolExecutor(max_workers=min(self.workers, len(work)) or 1, thread_name_prefix="bake") as pool:
            try:
                futures |= {pool.submit(_unless_cancelled, do, key, cancellation): key for key in work}
                pending = set(futures)
                while pending:
                    finished, pending = wait(pending, timeout=_LOOK_UP_S, return_when=FIRST_COMPLETED)
                    for future in finished:
                        error = future.exception()
                        if error is not None and not isinstance(error, CancelledError):
                            failures[work[futures[future]]] = error
                            cancellation.cancel()
            except BaseException:  # Ctrl-C above all: stop the others, then let it through
                cancellation.cancel()
                self.progress.note("prebuilt: stopping what is under way")
                raise
        if failures:
            first = next(iter(failures.values()))
            if not all(isinstance(error, PrebuiltError) for error in failures.values()):
                raise next(error for error in failures.values() if not isinstance(error, PrebuiltError))
            raise BakeError(failures) from first
        return {key: future.result() for future, key in futures.items()}


class _PreparedResolver:
    """Resolves once the builder has said that it can build: who resolves anew, which takes long, is likely to build.

    Where all locks are kept the builder is not asked.
    """

    def __init__(self, resolver: Resolver, builder: DockerBuildService) -> None:
        self._resolver, self._builder = resolver, builder
        self._lock = threading.Lock()
        self._is_prepared = False

    def resolve(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
        with self._lock:
            if not self._is_prepared:
                called(self._builder.prepare)
                self._is_prepared = True
        return self._resolver.resolve(requirements, check=check)


def _asks_otherwise(registry: ImageRegistry) -> bool:
    """Return whether ``image_exists`` is more than the question of ``resolve``, which need not be asked twice."""
    return type(registry).image_exists is not ImageRegistry.image_exists


def _credentials(registry: ImageRegistry, tag: str, published: Mapping[str, Any]) -> Credentials | None:
    """Return what to push with; what the registry has published, which may take it a request, is not asked for again."""
    if type(registry).credentials is ImageRegistry.credentials:
        return Credentials.published(published)
    return called(registry.credentials, tag)


def _in_short(error: BaseException) -> str:
    """Return what failed, for a line of progress; why is in the error that the bake ends with, and need not be said twice."""
    if isinstance(error, CancelledError):
        return "stopped"
    return error.tried if isinstance(error, PrebuiltError) else type(error).__name__


def _unless_cancelled(do: Callable[[K, Cancellation], V], key: K, cancellation: Cancellation) -> V:
    cancellation.check()
    return do(key, cancellation)


def _titles(keys: Mapping[str, K]) -> dict[K, str]:
    """Turn step → key into key → the names of its steps, joined, in order."""
    steps: dict[K, list[str]] = {}
    for step, key in keys.items():
        steps.setdefault(key, []).append(step)
    return {key: ", ".join(names) for key, names in steps.items()}


def _digest_of(manifest: Descriptor | str) -> str:
    return manifest.digest if isinstance(manifest, Descriptor) else manifest


def pinned(tag: str, digest: str) -> str:
    """Return the reference `tag` with its tag replaced by `digest`: ``host:5000/repo:tag`` gives ``host:5000/repo@sha256:…``."""
    head, slash, last = tag.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"
