"""The builder ``docker`` keeps the contract of builders, by the classic builder of the oldest engine and by BuildKit of the current one."""

from __future__ import annotations

import pytest

from prebuilt.docker import LocalDockerBuildService
from prebuilt.testing.conformance import BuilderContract
from prebuilt.testing.conformance.builder_world import NewBuilder
from prebuilt.testing.engines.docker import Docker

pytestmark = pytest.mark.docker


class DockerContract(BuilderContract):
    """What holds for each of them."""

    returns_descriptor = True
    takes_credentials = True
    builder = "auto"
    _engine: Docker

    @pytest.fixture
    def engine(self) -> Docker:
        """Return the engine."""
        raise NotImplementedError("give the fixture engine")

    @pytest.fixture(autouse=True)
    def _asked_engine(self, engine: Docker) -> None:
        self._engine = engine

    def leftovers(self) -> list[str]:
        """Return its containers, networks, and images but the base, which stays where the classic builder has pulled it."""
        images = self._engine.ask(
            "images", "--all", "--no-trunc", "--format={{.Repository}}:{{.Tag}} {{.ID}}"
        ).splitlines()
        others = ("ps", "--all"), ("network", "ls"), ("volume", "ls")
        return [
            *(image for image in images if "/base:" not in image),
            *(each for command in others for each in self._engine.ask(*command, "--quiet").split()),
        ]

    def forget(self) -> None:
        """Empty the build cache."""
        self._engine.ask("builder", "prune", "--all", "--force")

    @pytest.fixture
    def new_builder(self, engine: Docker, monkeypatch: pytest.MonkeyPatch) -> NewBuilder:
        """Return the class; it finds the engine by the environment."""
        for name, value in engine.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("METAFLOW_PREBUILT_DOCKER_BUILDER", self.builder)
        monkeypatch.setenv("METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK", "host")
        return LocalDockerBuildService


class TestClassicOfTheOldestEngine(DockerContract):
    @pytest.fixture
    def engine(self, docker_oldest: Docker) -> Docker:
        """Return it."""
        return docker_oldest


class TestBuildKitOfTheCurrentEngine(DockerContract):
    builder = "buildkit"

    @pytest.fixture
    def engine(self, docker_current: Docker) -> Docker:
        """Return it."""
        return docker_current


class TestBuildKitOfAnEngineWithContainerdsImages(DockerContract):
    """As new engines of Docker 29 are."""

    builder = "buildkit"

    @pytest.fixture
    def engine(self, docker_containerd: Docker) -> Docker:
        """Return it."""
        return docker_containerd
