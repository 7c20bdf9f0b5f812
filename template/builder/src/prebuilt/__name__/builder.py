"""The builder ``__name__``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prebuilt.core.build_service import BuildOutput, BuildRequest, Cancellation, DockerBuildService
from prebuilt.core.context_archive import context_archive, published_context
from prebuilt.core.errors import BuildError, PrebuiltError
from prebuilt.core.progress import ImageProgress
from prebuilt.core.tool_process import run_tool
from prebuilt.core.tree import Content

_TIMEOUT_S = 1800.0  # the longest that builds may take on the slowest of the builders that were published before


class __Title__BuildService(DockerBuildService):
    """Builds and pushes with ``__name__ build --push``, which reads its context from standard input."""

    def build(self, request: BuildRequest, progress: ImageProgress) -> None:
        """Build and push `request`. Return a descriptor instead of None once the command says what it pushed.

        Raises:
            BuildError: It failed; with the last lines of what the command said.
            CancelledError: The request was cancelled.
            EngineError: The command cannot be run.
        """
        request.check_registries("__name__")
        output = BuildOutput(progress)
        with request.as_dockerfile("plain", progress) as rendered:  # "buildkit" if it is one
            progress.state("building with __name__")
            platform = str(rendered.platform)
            status = _run(
                rendered.dockerfile, rendered.context, request.reference, platform, output, request.cancellation
            )
        if status != 0:
            raise BuildError(
                "build an image with __name__",
                at=request.reference,
                reason=f"it ended with status {status}" if status is not None else "its time was up",
                remedy="see what it said",
                output=output.last_lines,
            )

    def build_and_push(  # published signature
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag`; return False, after `echo` was told why, if that failed."""
        del push_credentials  # the command uses Docker's own configuration
        try:
            context = published_context(context_files)
            return _run(dockerfile, context, image_tag, target_platform, echo, Cancellation()) == 0
        except PrebuiltError as error:
            echo(str(error))
            return False


def _run(
    dockerfile: str,
    context: Mapping[str, Content],
    reference: str,
    platform: str | None,
    output: Callable[..., None],
    cancellation: Cancellation,
) -> int | None:
    """Return the command's exit status, or None if it took too long. Its lines go to `output` as they come."""
    options = ("--platform", platform) if platform else ()
    return run_tool(
        ("__name__", "build", "--push", "--tag", reference, *options, "-"),
        stdin=context_archive(dockerfile, context),
        output=output,
        check=cancellation.check,
        timeout_s=_TIMEOUT_S,
    )


_: type[DockerBuildService] = __Title__BuildService
