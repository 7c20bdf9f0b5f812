"""The builder ``buildx`` does what every builder does, on a BuildKit of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.build_service import DockerBuildService
from prebuilt.testing.conformance.builder_contract import BuilderContract
from prebuilt.testing.conformance.builder_world import NewBuilder
from prebuilt.testing.engines.buildkit import BuildKit
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.engines.docker import Docker

pytestmark = pytest.mark.buildx


@pytest.fixture(scope="module")
def builder_name(docker_current: Docker, buildkit: BuildKit) -> Iterator[str]:
    """A builder of the driver ``remote``."""
    with remote_builder(docker_current, buildkit) as name:
        yield name


class TestBuildxBuildService(BuilderContract):
    """On a remote BuildKit, which is given a login of the request's."""

    is_reproducible = True
    returns_descriptor = True
    takes_credentials = True
    _daemon: BuildKit
    _docker: Docker

    @pytest.fixture(autouse=True)
    def _asked(self, buildkit: BuildKit, docker_current: Docker) -> None:
        self._daemon, self._docker = buildkit, docker_current

    def leftovers(self) -> list[str]:
        """Return containers and images of the engine here, which has no part in a build on a remote BuildKit."""
        return [
            each
            for kind in (("ps", "--all"), ("images", "--all"))
            for each in self._docker.ask(*kind, "--quiet").split()
        ]

    def forget(self) -> None:
        """Empty the daemon's cache."""
        command = [self._daemon.buildctl, "--addr", self._daemon.address, "prune", "--all"]
        subprocess.run(command, check=True, capture_output=True)

    @pytest.fixture
    def new_builder(
        self, docker_current: Docker, builder_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> NewBuilder:
        """Return what makes builders by the settings that a user has."""
        for name, value in docker_current.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("METAFLOW_HOME", str(tmp_path))
        monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_BUILDER", builder_name)

        def make() -> DockerBuildService:
            return BuildxBuildService()

        return make
