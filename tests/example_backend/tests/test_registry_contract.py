"""The registries ``site`` and ``site-asked`` keep the contract, with a real registry and the real docker command."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_images.registry import AskedSiteRegistry, SiteRegistry

from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.engines.docker import daemonless_docker
from prebuilt.testing.engines.process import free_port
from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.engines.wanted import wanted_engine

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def registry_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a registry."""
    with wanted_engine(), distribution_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


class TestSiteRegistry(RegistryContract):
    """Every clause for a class that names images, and cannot be asked for them."""

    resolves = False
    answers = False

    @pytest.fixture
    def new_registry(self, registry_host: str, monkeypatch: pytest.MonkeyPatch) -> type[SiteRegistry]:
        """Give the class, with a repository of this test's own."""
        monkeypatch.setenv("SITE_REPOSITORY", f"{registry_host}/site/{secrets.token_hex(4)}")
        return SiteRegistry


class TestAskedSiteRegistry(RegistryContract):
    """The same, and ``image_exists``, by the real docker command. That of 20.10 sees no manifests of OCI's media type."""

    resolves = False

    @pytest.fixture(autouse=True)
    def docker_command(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the command of the current release into the PATH; it needs no engine for this."""
        with wanted_engine():
            for name, value in daemonless_docker(tmp_path).environ.items():
                monkeypatch.setenv(name, value)

    @pytest.fixture
    def new_registry(self, registry_host: str, monkeypatch: pytest.MonkeyPatch) -> type[AskedSiteRegistry]:
        """Give the class, with a repository of this test's own."""
        monkeypatch.setenv("SITE_REPOSITORY", f"{registry_host}/site/{secrets.token_hex(4)}")
        return AskedSiteRegistry

    @pytest.fixture
    def broken_registry(self, monkeypatch: pytest.MonkeyPatch) -> AskedSiteRegistry:
        """Give one that nobody reaches."""
        monkeypatch.setenv("SITE_REPOSITORY", f"127.0.0.1:{free_port()}/site/flows")
        return AskedSiteRegistry()
