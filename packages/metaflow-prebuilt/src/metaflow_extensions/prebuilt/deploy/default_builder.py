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


class DefaultBuilder(DockerBuildService):
    """Becomes one of two builders when the first image has to be built.

    Not before: a deploy that finds all its images asks no engine. That both make equal images of one spec is what allows it.
    """

    def __init__(self, preferred: str, embedded: str, settings: Settings, progress: Progress) -> None:
        """Be the builder `preferred`, which needs a Docker Engine, or else `embedded`; `progress` is told of the latter."""
        self._preferred = BUILD_SERVICES.get(preferred)
        self._embedded = embedded
        self._settings, self._progress = settings, progress
        self._lock = threading.Lock()
        self._chosen: DockerBuildService | None = None

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | None:
        """Build and push `request` with the builder that can."""
        return self._choose().build(request, progress)

    def build_and_push(  # published signature
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag` with the builder that can."""
        return self._choose().build_and_push(
            dockerfile, context_files, image_tag, push_credentials, echo, target_platform
        )

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return what the builder can do beyond the classic form."""
        return self._choose().dockerfile_build_options()

    def image_identity_suffix(self) -> str:
        """Return that of the preferred builder, which is asked without its engine."""
        return self._preferred.image_identity_suffix()

    def _choose(self) -> DockerBuildService:
        with self._lock:
            if self._chosen is None:
                problem = _engine_problem(self._settings)
                self._chosen = self._preferred if problem is None else BUILD_SERVICES.get(self._embedded)
                if problem is not None:
                    self._progress.note(
                        f"prebuilt: images are built without Docker: {problem.reason} at {problem.at}"
                        f" ({BUILD_SERVICES.setting} names another builder)"
                    )
            return self._chosen


def _engine_problem(settings: Settings) -> PrebuiltError | None:
    """Return why no engine can be used; a damaged configuration of Docker is a reason as good as any."""
    from prebuilt.docker.engine import engine_problem

    try:
        return engine_problem(settings)
    except PrebuiltError as error:
        return error
