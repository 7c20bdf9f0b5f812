"""One run of ``docker buildx build``: what it is given, what it says, and what is left of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prebuilt.buildx.command import BuildxBuild, build_command, build_environ
from prebuilt.buildx.config import TIMEOUT_SETTING, BuildxConfig
from prebuilt.buildx.failure import find_cause
from prebuilt.buildx.instance import BuilderInstance
from prebuilt.buildx.metadata import read_descriptor
from prebuilt.core.build_service import Cancellation
from prebuilt.core.buildkit_output import BuildKitOutput
from prebuilt.core.context_archive import context_archive
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError
from prebuilt.core.private_docker_config import private_docker_config
from prebuilt.core.storage import scratch_folder
from prebuilt.core.tool_process import run_tool
from prebuilt.core.tree import Content
from prebuilt.oci.docker_config import Login


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildxRun:
    """A build on a builder.

    Attributes:
        build: What to build, and where to push it.
        instance: Where it is built.
        config: How.
        logins: By registry, beside those of Docker's configuration.
        cancellation: Stops it.
    """

    build: BuildxBuild
    instance: BuilderInstance
    config: BuildxConfig
    logins: Mapping[str, Login] = field(default_factory=dict)
    cancellation: Cancellation = field(default_factory=Cancellation)

    def run(self, dockerfile: str, context: Mapping[str, Content], show: Callable[[str], None]) -> Descriptor | None:
        """Build and push; return the descriptor of what was pushed, or None where the builder does not say.

        Raises:
            BuildError: It failed, or took too long.
            CancelledError: It was cancelled.
            EngineError: The command cannot be run.
            StorageError: There is no space for temporary files.
        """
        output = BuildKitOutput(show)
        with scratch_folder("prebuilt-buildx-") as scratch:
            metadata = scratch / "metadata.json"
            environ = self._environ(scratch)
            status = run_tool(
                build_command(self.build, self.instance, self.config, environ, metadata),
                output=output,
                stdin=context_archive(dockerfile, context),
                environ=environ,
                check=self.cancellation.check,
                timeout_s=self.config.timeout_s,
                remove=[scratch],
            )
            if status != 0:
                raise self._failure(output.lines, in_time=status is not None)
            return read_descriptor(metadata)

    def _environ(self, scratch: Path) -> dict[str, str]:
        environ = build_environ(os.environ)
        if not self.logins:
            return environ
        entries = {host: login.entry for host, login in self.logins.items()}
        return environ | private_docker_config(scratch / "docker", entries, environ)

    def _failure(self, lines: tuple[str, ...], *, in_time: bool) -> BuildError:
        if in_time:
            reason, remedy = find_cause(
                lines, host=self.build.host, builder=self.instance.name, stage_image=self.build.stage_image
            )
        else:
            reason = f"it took longer than {self.config.timeout_s} s"
            remedy = f"set {TIMEOUT_SETTING} to more seconds"
        return BuildError(
            f"build an image with buildx's builder {self.instance}",
            at=self.build.reference,
            reason=reason,
            remedy=remedy or "see what it said",
            output=lines,
        )
