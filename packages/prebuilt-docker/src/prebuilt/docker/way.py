"""Which of Docker's two builders builds: BuildKit where command and engine can, else the classic one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prebuilt.core.dockerfile import DockerfileForm
from prebuilt.core.errors import BuildError, EngineError
from prebuilt.core.settings import Settings
from prebuilt.docker.build_config import DockerBuildConfig
from prebuilt.docker.buildkit import BuildKitCommand, find_command, major
from prebuilt.docker.endpoint import Endpoint

if TYPE_CHECKING:
    import docker

_FIRST_ENGINE_WITH_LINKS = (
    23  # its BuildKit is 0.10 or newer: COPY --link without a frontend that would have to be pulled
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How images are built.

    Attributes:
        command: For BuildKit; None for the classic builder.
        why: For people: which builder it is, and why.
    """

    command: BuildKitCommand | None
    why: str

    @property
    def form(self) -> DockerfileForm:
        """The form of Dockerfiles that it takes."""
        return "buildkit" if self.command else "plain"

    @classmethod
    def choose(cls, client: docker.APIClient, settings: Settings, config: DockerBuildConfig) -> Way:
        """Return the way that the settings ask for; of ``auto``, the better one that is there.

        Raises:
            BuildError: BuildKit is asked for and cannot be had.
            EngineError: The engine or the command does not answer.
        """
        if config.builder == "classic":
            return cls(command=None, why="the classic builder, which METAFLOW_PREBUILT_DOCKER_BUILDER asks for")
        version = engine_version(client)
        missing = version.without_buildkit
        if missing is None:
            found = find_command(settings.environ, Endpoint.find(settings.environ))
            if isinstance(found, BuildKitCommand):
                return cls(command=found, why=f"BuildKit of {version}, through {found.version}")
            missing = found.reason
        if config.builder == "buildkit":
            raise BuildError(
                "build with BuildKit, which METAFLOW_PREBUILT_DOCKER_BUILDER asks for",
                at=str(Endpoint.find(settings.environ)),
                reason=missing,
                remedy="install what is missing, or unset METAFLOW_PREBUILT_DOCKER_BUILDER",
            )
        return cls(command=None, why=f"the classic builder of {version}, since for BuildKit {missing}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineVersion:
    """What an engine says that it is."""

    name: str
    number: str
    os: str

    def __str__(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.number}"

    @property
    def without_buildkit(self) -> str | None:
        """Why our Dockerfiles for BuildKit cannot be built with it; None if they can."""
        if "podman" in self.name.lower():
            return "Podman has none"
        if self.os != "linux":
            return f"an engine for Linux is needed, and this one is for {self.os}"
        if major(self.number) < _FIRST_ENGINE_WITH_LINKS:
            return f"Docker Engine {_FIRST_ENGINE_WITH_LINKS} or newer is needed"
        return None


def engine_version(client: docker.APIClient) -> EngineVersion:
    """Return what the engine says that it is.

    Raises:
        EngineError: It does not answer.
    """
    import docker.errors
    import requests

    try:
        said = client.version()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise EngineError("ask the Docker Engine for its version", reason=str(error)) from error
    names = [str(part.get("Name", "")) for part in said.get("Components") or []]
    is_podman = any("podman" in name.lower() for name in names)
    name = "Podman" if is_podman else "Docker Engine"
    return EngineVersion(name=name, number=str(said.get("Version", "")), os=str(said.get("Os", "linux")).lower())
