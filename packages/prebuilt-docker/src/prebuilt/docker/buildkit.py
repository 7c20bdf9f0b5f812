"""BuildKit in the engine, which only the ``docker`` command speaks to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.buildkit_output import BuildKitOutput, pulled_image
from prebuilt.core.private_docker_config import private_docker_config
from prebuilt.core.storage import scratch_folder
from prebuilt.core.tool_process import ask_tool, run_tool
from prebuilt.docker.endpoint import Endpoint
from prebuilt.docker.image_build import DeadlineError, ImageBuild

_LAST_CLI_WITH_CLIENT = 22  # later ones leave BuildKit to buildx; there was no release 21 or 22 of the engine itself

_QUIET_CHECK = "BUILDKIT_DOCKERFILE_CHECK=skip=FromPlatformFlagConstDisallowed"
"""Our Dockerfiles name the platform of a base that is pinned for one."""


class BuildKitError(Exception):
    """The build failed; the text is the command's, or says how it ended.

    Attributes:
        output: The last lines of what the command said, those of the step that failed first.
        pulled: The image that could not be pulled, where that is why.
    """

    def __init__(self, text: str, output: Sequence[str]) -> None:
        """Keep both."""
        super().__init__(text)
        self.output = output
        self.pulled = pulled_image(text, output)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildKitCommand:
    """A ``docker`` command that can have an engine's BuildKit build.

    Attributes:
        words: It, without options of one build: ``docker buildx build …``.
        environ: Its environment, in which the engine is ours whatever context and builder are in use.
        version: What it is, for people.
    """

    words: Sequence[str]
    environ: Mapping[str, str]
    version: str

    def build(self, build: ImageBuild) -> None:
        """Build an image. The cache stays in the engine, which cleans it up as it is configured to.

        Raises:
            BuildKitError: It failed.
            CancelledError: It was cancelled.
            DeadlineError: It took too long.
            StorageError: There is no space for temporary files, or a file of the context cannot be read.
        """
        output = BuildKitOutput(build.output)
        with scratch_folder("prebuilt-docker-") as scratch:
            status = run_tool(
                [*self.words, *_options(build)],
                output=output,
                stdin=build.archive(),
                environ={**self._environ(build, scratch), **build.arguments},
                check=build.limits.cancellation.check,
                timeout_s=build.limits.left_s,
                remove=[scratch],
            )
        if status is None:
            raise DeadlineError
        if status:
            errors = [line.removeprefix("ERROR: ") for line in output.lines if line.startswith("ERROR: ")]
            raise BuildKitError(errors[-1] if errors else f"docker build ended with status {status}", output.lines)

    def _environ(self, build: ImageBuild, scratch: Path) -> Mapping[str, str]:
        if not build.logins:
            return self.environ
        entries = {host: login.entry for host, login in build.logins.items()}
        return {**self.environ, **private_docker_config(scratch / "docker", entries, self.environ)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoBuildKit:
    """Why there is no command that can have BuildKit build; for people."""

    reason: str


def find_command(environ: Mapping[str, str], endpoint: Endpoint) -> BuildKitCommand | NoBuildKit:
    """Return the command by which the engine at `endpoint` builds with BuildKit, or why there is none.

    Raises:
        EngineError: A command is there and cannot be run.
    """
    program = shutil.which("docker", path=environ.get("PATH"))
    if program is None:
        return NoBuildKit(reason="the docker command, which it needs, is not on the PATH")
    own = _environ(environ, endpoint)
    buildx = ask_tool([program, "buildx", "version"], environ=own)
    if buildx.status == 0:
        words = (program, "buildx", "build", "--builder=default", "--load", "--progress=plain")
        return BuildKitCommand(words=words, environ=own, version=f"buildx {_version(buildx.stdout)}")
    version = _version(ask_tool([program, "--version"], environ=own).stdout)
    if major(version) > _LAST_CLI_WITH_CLIENT:
        return NoBuildKit(reason=f"the docker command {version} has no plugin buildx, which it needs")
    return BuildKitCommand(words=(program, "build", "--progress=plain"), environ=own, version=f"docker {version}")


def major(version: str) -> int:
    """Return the first number of a version: 28 of ``28.5.2+dfsg4``; 0 where there is none."""
    number = re.match(r"v?(\d+)", version)
    return int(number[1]) if number else 0


def _options(build: ImageBuild) -> list[str]:
    """Return the options of one build. Values of build arguments, which may hold secrets, stay in the environment."""
    return [
        f"--tag={build.name}",
        *([f"--platform={build.platform}"] if build.platform else []),
        *([f"--network={build.network}"] if build.network else []),
        "--build-arg=SOURCE_DATE_EPOCH=0",  # no time of building in the image: the same layers are the same image
        f"--build-arg={_QUIET_CHECK}",
        *(f"--build-arg={name}" for name in sorted(build.arguments)),
        "-",
    ]


def _environ(environ: Mapping[str, str], endpoint: Endpoint) -> dict[str, str]:
    """Return an environment in which the builder ``default`` is that of `endpoint`."""
    ours = {
        "DOCKER_HOST": endpoint.host,
        "DOCKER_BUILDKIT": "1",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",  # an image, not an index of it and what says how it was built
        "DOCKER_CLI_HINTS": "false",
        "NO_COLOR": "1",
    }
    if endpoint.tls is not None:
        ours["DOCKER_CERT_PATH"] = str(endpoint.tls.folder)
        ours["DOCKER_TLS_VERIFY" if endpoint.tls.verifies else "DOCKER_TLS"] = "1"
    theirs = {"DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "BUILDX_BUILDER"}
    return {name: value for name, value in environ.items() if name not in theirs} | ours


def _version(text: str) -> str:
    """Return the version in what a command says of itself."""
    number = re.search(r"\bv?(\d+\.\d+[^\s,]*)", text)
    return number[1] if number else "of unknown version"
