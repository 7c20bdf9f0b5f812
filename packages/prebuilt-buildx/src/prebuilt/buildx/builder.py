"""The builder ``buildx``: a BuildKit, wherever it runs, builds and pushes; this machine only says what."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prebuilt.core.build_service import BuildRequest, DockerBuildService, DockerfileBuildOptions
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import PrebuiltError
from prebuilt.core.progress import ImageProgress
from prebuilt.core.settings import Settings

if TYPE_CHECKING:
    from prebuilt.buildx.config import BuildxConfig
    from prebuilt.buildx.instance import BuilderInstance
    from prebuilt.buildx.run import BuildxRun
    from prebuilt.oci.docker_config import Login


class BuildxBuildService(DockerBuildService):
    """Builds Dockerfiles with ``docker buildx build --push``. Concurrent builds share what they have in common."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Keep the settings; start nothing, ask nothing."""
        self._settings = settings or Settings.load()
        self._lock = threading.Lock()
        self._found: tuple[BuildxConfig, BuilderInstance] | None = None
        self._has_told = False

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return that the builder is a BuildKit."""
        return DockerfileBuildOptions(buildkit_deferred_input_mounts=True)

    def prepare(self) -> None:
        """Look for the builder.

        Raises:
            EngineError: Docker's command line, buildx or the builder cannot be used.
        """
        self._find()

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | None:
        """Build and push `request`; return the descriptor of what was pushed, or None where the builder does not say.

        Raises:
            BuildError: It failed, or took too long; with what the failed step said.
            CancelledError: The request was cancelled.
            EngineError: Docker's command line, buildx or the builder cannot be used.
            FetchError: A package that has to travel in the context could not be downloaded.
            RegistryError: A cloud gave no login for where the base image is.
        """
        from prebuilt.buildx.base_layout import name_layouts

        request.cancellation.check()
        run = self._run(request.reference, progress.note)
        with request.as_dockerfile(run.instance.form, progress) as rendered:
            dockerfile, layouts = name_layouts(rendered.dockerfile, request.spec.base)
            progress.state(f"building with buildx's builder {run.instance}")
            return replace(
                run,
                build=replace(run.build.of(request.spec), layouts=layouts, stage_image=rendered.stage_image),
                logins=self._logins(run, rendered.dockerfile, request.credentials),
                cancellation=request.cancellation,
            ).run(dockerfile, rendered.context, progress.output)

    def build_and_push(  # published signature
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag`; return False if that failed.

        What buildx says goes to `echo` as it comes, and then, if it failed, why. It pushes with ``username`` and ``password`` of
        `push_credentials`; without them, with the logins of Docker's configuration or of an installed package for the registry's cloud.
        """
        from prebuilt.core.context_archive import published_context

        login = Credentials.published(push_credentials)
        try:
            run = self._run(image_tag, echo)
            build, logins = replace(run.build, platform=target_platform), self._logins(run, dockerfile, login)
            context = published_context(context_files)
            replace(run, build=build, logins=logins).run(dockerfile, context, echo)
        except PrebuiltError as error:
            echo(PrebuiltError.__str__(error))  # without the lines that it has passed on already
            return False
        return True

    def _run(self, reference: str, note: Callable[[str], None]) -> BuildxRun:
        """Return a run that pushes to `reference`; what is to be known of its builder is noted once."""
        from prebuilt.buildx.command import BuildxBuild
        from prebuilt.buildx.run import BuildxRun

        build = BuildxBuild.to(reference)
        config, instance = self._find()
        with self._lock:
            if instance.shortcomings and not self._has_told:
                note(f"with buildx's builder {instance}, {instance.shortcomings}")
            self._has_told = True
        return BuildxRun(build=build, instance=instance, config=config)

    def _find(self) -> tuple[BuildxConfig, BuilderInstance]:
        """Return the builder, and how it is used: looked for once for all images. A failure is not remembered."""
        from prebuilt.buildx.config import BuildxConfig
        from prebuilt.buildx.instance import find_instance

        with self._lock:
            if self._found is None:
                config = BuildxConfig.from_settings(self._settings)
                self._found = config, find_instance(config.builder, os.environ)
            return self._found

    def _logins(self, run: BuildxRun, dockerfile: str, credentials: Credentials | None) -> Mapping[str, Login]:
        """Return what the command lacks: the login that was given, and those of a cloud or of Podman for what is pulled."""
        from prebuilt.buildx.command import cache_place
        from prebuilt.oci.dockerfile_images import pulled_repositories
        from prebuilt.oci.logins import find_logins
        from prebuilt.oci.reference import parse_reference

        place = cache_place(run.build, run.config)
        cache = [parse_reference(place).repository] if place else []
        given = {run.build.host: credentials} if credentials else {}
        names = (run.build.repository, *pulled_repositories(dockerfile), *cache)
        return find_logins(names, self._settings, given=given, beyond_docker=True)


_: type[DockerBuildService] = BuildxBuildService
