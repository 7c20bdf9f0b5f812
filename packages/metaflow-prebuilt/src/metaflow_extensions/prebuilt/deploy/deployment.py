"""What the launch process does before the first task: images for steps that run elsewhere, environments for those that run here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from metaflow_extensions.prebuilt.deploy.backends import IMAGE_REGISTRY, Backends, choose_backends, registry_is_chosen
from metaflow_extensions.prebuilt.deploy.base_image import base_image, displacing_setting
from metaflow_extensions.prebuilt.deploy.container_images import by_digest
from metaflow_extensions.prebuilt.deploy.errors import clean_errors
from metaflow_extensions.prebuilt.deploy.interruption import at_once_the_second_time
from metaflow_extensions.prebuilt.deploy.on_demand import (
    DocumentsOnDemand,
    InterpretersOnDemand,
    MaterialsOnDemand,
    ResolverOnDemand,
    base_images,
    local_wheels,
)
from metaflow_extensions.prebuilt.deploy.requirements import image_requirements, local_requirements
from metaflow_extensions.prebuilt.plugins.conda.asked import Asked
from prebuilt.core.bake import BakedImage, Baker, StepImage
from prebuilt.core.build_service import Interpreters
from prebuilt.core.dockerfile import MaterialsSource
from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import BaseImageError, RateLimitedError, RegistryError, SettingError
from prebuilt.core.locks import Locks, Resolver
from prebuilt.core.loopback import is_loopback
from prebuilt.core.platforms import Platform
from prebuilt.core.plugin_calls import called
from prebuilt.core.progress import LineProgress, Progress, TerminalProgress
from prebuilt.core.requirements import Requirements
from prebuilt.core.settings import Settings

_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StepToDeploy:
    """One step of a flow.

    Attributes:
        asked: What it asks for; None for a step that keeps its image.
        compute: The decorator that sends it elsewhere; None if it runs here as it is.
    """

    name: str
    asked: Asked | None
    compute: Any | None

    @property
    def leaves_this_machine(self) -> bool:
        """Whether other machines must be able to pull the image."""
        return self.compute is not None and self.compute.name != "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What came out, by step name: references of images, paths of interpreters on this machine."""

    images: Mapping[str, str]
    interpreters: Mapping[str, str]


def deploy(
    steps: Sequence[StepToDeploy], *, datastore_type: str, refresh: bool, echo: Callable[..., None], quiet: bool
) -> Deployed:
    """Bake and make what `steps` need; their compute decorators name their images afterwards.

    Raises:
        PrebuiltEnvironmentException: Something failed; the message says what was tried, why it failed and what to do.
    """
    with clean_errors(), at_once_the_second_time():
        settings, progress = Settings.load(), _progress(echo, quiet=quiet)
        deployment = Deployment(
            settings=settings,
            datastore_type=datastore_type,
            refresh=refresh or settings.flag("PREBUILT_REFRESH", default=False),
            progress=progress,
            resolver=ResolverOnDemand(settings=settings, progress=progress),
        )
        return deployment.deploy(steps)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Everything that a deployment needs but the steps."""

    settings: Settings
    datastore_type: str
    refresh: bool
    progress: Progress
    resolver: Resolver

    def deploy(self, steps: Sequence[StepToDeploy]) -> Deployed:
        """See :func:`deploy`; raises errors of ``prebuilt`` as they are."""
        elsewhere = [step for step in steps if step.compute is not None]
        here = {step.name: step.asked for step in steps if step.compute is None and step.asked}
        backends = self._backends(elsewhere)
        documents = DocumentsOnDemand(settings=self.settings, progress=self.progress, backends=backends)
        baked = self._bake(elsewhere, backends, documents) if backends else {}
        running_here = [step.name for step in elsewhere if not step.leaves_this_machine and step.name in baked]
        baked |= by_digest({name: baked[name] for name in running_here}, self.settings, self.progress.note)
        self._warn_of_loopback(
            {step.name: baked[step.name] for step in elsewhere if step.leaves_this_machine and step.name in baked}
        )
        pinned = self._pin(
            [step for step in elsewhere if step.asked is None and not step.leaves_this_machine], documents
        )
        for step in elsewhere:
            if step.name in baked:
                set_image(step.compute, baked[step.name])
            elif step.name in pinned:
                step.compute.attributes["image"] = pinned[step.name]  # type: ignore[union-attr]
        images = {name: image.reference for name, image in baked.items()} | pinned
        # The steps of one flow agree: where some run elsewhere, those that run here have the registry's locks of today, too.
        interpreters = self._make_environments(here, documents.local_first(asks=bool(elsewhere)))
        return Deployed(images=images, interpreters=interpreters)

    def _backends(self, elsewhere: Sequence[StepToDeploy]) -> Backends | None:
        """Return builder and registry if images are to be baked, or if locks have a chosen place to be kept at."""
        baking = [step for step in elsewhere if step.asked]
        if not baking and not registry_is_chosen(self.settings):
            return None
        backends = choose_backends(self.settings, self.progress)
        leaving = [step.name for step in baking if step.leaves_this_machine]
        if leaving and not called(backends.registry.is_reachable_from_cluster):
            raise SettingError(
                f"METAFLOW_{IMAGE_REGISTRY}",
                reason=f"images are kept on this machine, where {_named(leaving)} cannot pull them",
                remedy=f"set METAFLOW_{IMAGE_REGISTRY} to a registry that the cluster reaches (for the registry local,"
                " METAFLOW_PREBUILT_LOCAL_REGISTRY_PULL to an address that it reaches), or run with --with container",
            )
        return backends

    def _bake(
        self, elsewhere: Sequence[StepToDeploy], backends: Backends, documents: DocumentsOnDemand
    ) -> dict[str, BakedImage]:
        images = [self._step_image(step.name, step.asked, step.compute) for step in elsewhere if step.asked]
        if not images:
            return {}
        self._tell_of_displaced_images([step for step in elsewhere if step.asked])
        baker = Baker(
            resolver=self.resolver,
            bases=base_images(self.settings, documents, self.progress),
            registry=backends.registry,
            builder=backends.builder,
            documents=documents,
            progress=self.progress,
            compression="gzip" if self._compression() == "gzip" else "zstd",
            workers=self.settings.positive_int("PREBUILT_BUILD_WORKERS", default=min(len(images), _MOST_WORKERS)),
            refresh=self.refresh,
            reuse=self.settings.flag("PREBUILT_REGISTRY_CACHE", default=True),
            has_bytecode=backends.builder.makes_bytecode,
            materials=self._materials(documents),
            interpreters=self._interpreters(documents),
            wheels=local_wheels(self.settings),
        )
        return baker.bake(images)

    def _tell_of_displaced_images(self, steps: Sequence[StepToDeploy]) -> None:
        displaced: dict[str, list[str]] = {}
        for step in steps:
            setting = displacing_setting(step.compute, self.settings)
            if setting:
                displaced.setdefault(setting, []).append(step.name)
        for setting, names in displaced.items():
            self.progress.note(f"prebuilt: METAFLOW_{setting} takes the place of the image= of {_named(names)}")

    def _warn_of_loopback(self, leaving: Mapping[str, BakedImage]) -> None:
        """Tell of images that are pulled from a loopback. A node may have a mirror of that name, as kind's have: no more is known here."""
        steps_of: dict[str, list[str]] = {}
        for name, image in leaving.items():
            steps_of.setdefault(image.reference.partition("/")[0], []).append(name)
        for host, names in steps_of.items():
            if is_loopback(urlsplit(f"//{host}").hostname or ""):
                self.progress.note(
                    f"prebuilt: {_named(names)} will pull from {host}, which each node takes for itself: if its nodes have no mirror"
                    f" of that name, set METAFLOW_{IMAGE_REGISTRY} to a registry that the cluster reaches"
                )

    def _materials(self, documents: DocumentStore) -> MaterialsSource:
        locks = Locks(
            resolver=self.resolver, documents=documents, progress=self.progress, wheels=local_wheels(self.settings)
        )
        return MaterialsOnDemand(settings=self.settings, locks=locks)

    def _interpreters(self, documents: DocumentsOnDemand) -> Interpreters:
        locks = Locks(resolver=self.resolver, documents=documents.local_first(), progress=self.progress)
        return InterpretersOnDemand(settings=self.settings, locks=locks)

    def _step_image(self, name: str, asked: Asked, compute: Any) -> StepImage:
        if "image" not in compute.attributes:
            raise SettingError(
                f"the image of step {name}",
                reason=f"@{compute.name} does not let steps choose one",
                remedy=f"remove @{compute.name}, @conda or @pypi from it",
            )
        return StepImage(
            step=name,
            requirements=image_requirements(asked, compute, self.datastore_type, self.settings),
            base_image=base_image(compute, asked.python, self.settings),
        )

    def _pin(self, steps: Sequence[StepToDeploy], documents: DocumentStore) -> dict[str, str]:
        """Return the images that steps without requirements keep, by digest: containers on this machine are run by that."""
        pinned = {}
        for step in steps:
            compute: Any = step.compute
            image, platform = compute.attributes["image"], Platform.parse(compute.target_platform)
            try:
                base = base_images(self.settings, documents, self.progress).get(image, platform)
            except (BaseImageError, RegistryError) as error:
                own = f"{error.remedy}; or " if isinstance(error, RateLimitedError) else ""
                raise BaseImageError(
                    f"find the image of step {step.name}, which asks for no packages",
                    at=image,
                    reason=error.reason,
                    remedy=f"{own}give it another with @{compute.name}(image=…) or METAFLOW_DEFAULT_CONTAINER_IMAGE, or add @pypi",
                ) from error
            pinned[step.name] = f"{base.repository}@{base.digest}"
        return pinned

    def _make_environments(self, here: Mapping[str, Asked], documents: DocumentStore) -> dict[str, str]:
        if not here:
            return {}
        from metaflow_extensions.prebuilt.deploy.local_environments import LocalEnvironments

        locks = Locks(
            resolver=self.resolver,
            documents=documents,
            progress=self.progress,
            refresh=self.refresh,
            wheels=local_wheels(self.settings),
        )
        environments = LocalEnvironments(settings=self.settings, locks=locks, progress=self.progress)
        steps_of: dict[str, list[str]] = {}
        requirements_of: dict[str, Requirements] = {}
        for name, asked in here.items():
            requirements = local_requirements(asked, self.datastore_type, self.settings)
            requirements_of[requirements.req_id] = requirements
            steps_of.setdefault(requirements.req_id, []).append(name)
        interpreters: dict[str, str] = {}
        for req_id, names in steps_of.items():
            interpreter = environments.ensure(requirements_of[req_id], title=", ".join(names))
            interpreters |= dict.fromkeys(names, str(interpreter))
        return interpreters

    def _compression(self) -> str:
        return self.settings.choice("PREBUILT_COMPRESSION", ("zstd", "gzip"), default="zstd")


def set_image(compute: Any, image: BakedImage) -> None:
    """Point a compute decorator at `image`, and set what the registry wants set in order to pull it.

    One registry serves steps on Batch and on Kubernetes: what a decorator does not know is not meant for it.
    """
    compute.attributes["image"] = image.reference
    for name, value in image.pull_config.items():
        if name in compute.defaults:
            as_list = name == "image_pull_secrets" and isinstance(value, str)  # published examples give one name
            compute.attributes[name] = [value] if as_list else value


def _named(steps: Sequence[str]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(steps)}"


def _progress(echo: Callable[..., None], *, quiet: bool) -> Progress:
    # A dumb terminal cannot move its cursor: of a line that is drawn anew it would show every state.
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet:
        return TerminalProgress(sys.stderr, width=lambda: shutil.get_terminal_size().columns)
    return LineProgress(lambda line: echo(line, no_bold=True))
