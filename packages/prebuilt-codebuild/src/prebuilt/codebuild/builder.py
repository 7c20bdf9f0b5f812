"""The builder ``codebuild``: AWS CodeBuild builds and pushes; this machine only says what, and shows the log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prebuilt.core.build_service import BuildRequest, DockerBuildService, DockerfileBuildOptions
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import PrebuiltError
from prebuilt.core.progress import EchoProgress, ImageProgress
from prebuilt.core.settings import Settings

if TYPE_CHECKING:
    from prebuilt.codebuild.run import CodeBuildRun


class CodeBuildService(DockerBuildService):
    """Builds Dockerfiles in the project ``METAFLOW_PREBUILT_CODEBUILD_PROJECT``.

    Needs AWS credentials, by boto3's chain, and no Docker. Concurrent builds are fine: each has a context and a machine of its own.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Keep the settings; import no SDK, ask nobody."""
        self._settings = settings or Settings.load()
        self._lock = threading.Lock()
        self._amazon: Any = None

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return that the builder is a BuildKit."""
        return DockerfileBuildOptions(buildkit_deferred_input_mounts=True)

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | None:
        """Build and push `request`; return the descriptor of what was pushed, or None where the project's own buildspec does not say.

        The request's credentials are not used: a password would be a variable of the build. The project's role logs in to Amazon ECR,
        and other logins come from Secrets Manager.

        Raises:
            AmazonError: AWS refused, or could not be asked; a BuildError.
            BuildError: The build failed, was stopped, or took too long; with the last lines of its log.
            CancelledError: The request was cancelled.
            FetchError: A package that has to travel in the context could not be downloaded.
            SettingError: Bucket, project or region is missing or malformed.
        """
        request.check_registries("CodeBuild")
        request.cancellation.check()
        run = self._prepare(request.reference)
        run = replace(run, job=run.job.of(request.spec), cancellation=request.cancellation)
        with request.as_dockerfile("buildkit", progress) as rendered:
            return run.run(rendered.dockerfile, rendered.context, progress)

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

        What the build says goes to `echo` as it comes, and then, if it failed, why. Nothing of `push_credentials` is used: where
        builds run is settings, and their logins are the project's.
        """
        from prebuilt.core.context_archive import published_context

        del push_credentials
        try:
            run = self._prepare(image_tag)
            run = replace(run, job=replace(run.job, platform=target_platform))
            run.run(dockerfile, published_context(context_files), EchoProgress(echo))
        except PrebuiltError as error:
            echo(PrebuiltError.__str__(error))  # without the lines that it has passed on already
            return False
        return True

    def _prepare(self, reference: str) -> CodeBuildRun:
        """Return a run that pushes to `reference`, in the region that is set, or else in that of the registry."""
        from prebuilt.codebuild.amazon import Amazon
        from prebuilt.codebuild.config import CodeBuildConfig
        from prebuilt.codebuild.job import BuildJob
        from prebuilt.codebuild.run import CodeBuildRun
        from prebuilt.oci.amazon import ecr_region

        config, job = CodeBuildConfig.from_settings(self._settings), BuildJob.to(reference)
        with self._lock:
            if self._amazon is None:
                self._amazon = Amazon()
        return CodeBuildRun(clients=self._amazon.clients(config.region or ecr_region(job.host)), config=config, job=job)


_: type[DockerBuildService] = CodeBuildService
