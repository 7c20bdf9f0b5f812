"""The builder ``site`` keeps the contract, with a real Docker Engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from site_images.builder import SiteBuildService

from prebuilt.testing.conformance import BuilderContract
from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.wanted import wanted_engine

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """Give an engine of these tests' own."""
    with wanted_engine(), docker_engine() as docker:
        yield docker


class TestSiteBuildService(BuilderContract):
    """Every clause of the contract that a class with ``build_and_push`` alone is held to."""

    @pytest.fixture
    def new_builder(self, docker: Docker, monkeypatch: pytest.MonkeyPatch) -> type[SiteBuildService]:
        """Give the class, with the engine behind the docker command."""
        for name, value in docker.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SITE_BUILD_OPTIONS", "--network=host")
        return SiteBuildService
