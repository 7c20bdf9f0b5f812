"""The builder of who chose none: Docker where an engine answers, else what needs no engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from prebuilt.core.build_service import BuildRequest, DockerBuildService, DockerfileBuildOptions
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import PrebuiltError
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.core.progress import ImageProgress, Progress
from prebuilt.core.settings import Settings
from prebuilt.oci.reference import LAYOUT_PREFIX


class DefaultBuilder(DockerBuildService):
    """Becomes one of two builders when the first image has to be built.

    Not before: a deploy that finds all its images asks no engine. That both make equal images of one spec is what allows it.
    An engine sees no folders of ours, so what is built on an image layout needs the one without, engine or not.
    """

    def __init__(self, preferred: str, embedded: str, settings: Settings, progress: Progress) -> None:
        """Be the builder `preferred`, which needs a Docker Engine, or else `embedded`; `progress` is told of the latter."""
        self._preferred = BUILD_SERVICES.get(preferred)
        self._embedded = BUILD_SERVICES.get(embedded)
        self._settings, self._progress = settings, progress
        self._lock = threading.Lock()
        self._has_asked = False
        self._problem: str | None = None
        self._told: set[str] = set()

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | str | None:
        """Build and push `request` with the builder that can."""
        return self._choose(request).build(request, progress)

    def build_and_push(  # published signature
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag`: with the preferred builder, since the embedded one takes none."""
        return self._preferred.build_and_push(
            dockerfile, context_files, image_tag, push_credentials, echo, target_platform
        )

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return what the preferred builder can do beyond the classic form."""
        return self._preferred.dockerfile_build_options()

    def image_identity_suffix(self) -> str:
        """Return that of the preferred builder, which is asked without its engine."""
        return self._preferred.image_identity_suffix()

    def makes_bytecode(self, python_xy: str) -> bool:
        """Return whether both builders make it: the image is the same whichever builds it."""
        return all(builder.makes_bytecode(python_xy) for builder in (self._preferred, self._embedded))

    def _choose(self, request: BuildRequest) -> DockerBuildService:
        with self._lock:
            base = request.spec.base.repository
            if base.startswith(LAYOUT_PREFIX):
                self._tell(f"the base image is in {base}, a folder of this machine")
                return self._embedded
            if not self._has_asked:
                self._problem, self._has_asked = _engine_problem(self._settings), True
            if self._problem is None:
                return self._preferred
            self._tell(self._problem)
            return self._embedded

    def _tell(self, why: str) -> None:
        if why not in self._told:
            self._told.add(why)
            line = f"prebuilt: images are built without Docker: {why} ({BUILD_SERVICES.setting} names another builder)"
            self._progress.note(line)


def _engine_problem(settings: Settings) -> str | None:
    """Return why no engine can be used; a damaged configuration of Docker is a reason as good as any."""
    from prebuilt.docker.engine import engine_problem

    try:
        problem: PrebuiltError | None = engine_problem(settings)
    except PrebuiltError as error:
        problem = error
    return None if problem is None else f"{problem.reason} at {problem.at}"
