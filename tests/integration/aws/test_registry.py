"""The registry ``ecr`` in front of a real registry, and what Docker's builders pull and push there."""

from __future__ import annotations

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.docker import LocalDockerBuildService
from prebuilt.ecr import ECRRegistry
from prebuilt.oci.open import open_repository
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.engines.aws import reaching
from prebuilt.testing.engines.buildkit import buildkit_daemon
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.engines.process import EngineError

pytestmark = [pytest.mark.aws, pytest.mark.usefixtures("configured")]


class TestECRRegistry(RegistryContract):
    """Every clause of the contract."""

    @pytest.fixture
    def new_registry(self):
        """Give the class."""
        return ECRRegistry

    @pytest.fixture
    def broken_registry(self, monkeypatch):
        """Give one whose host refuses connections."""
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        return ECRRegistry()


@pytest.fixture
def docker(amazon, configured, distant_base, monkeypatch):
    """Have this process use the cloud's engine, which does not have the base, and in whose configuration nobody logs in."""
    del configured
    base = f"{distant_base.repository}@{distant_base.digest}"
    with pytest.raises(EngineError, match="no basic auth credentials"):
        amazon.docker.ask("pull", base)
    for name, value in amazon.docker.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK", "host")
    yield amazon.docker
    if amazon.docker.ask("images", "--quiet", "--digests", distant_base.repository):
        amazon.docker.ask("rmi", base)
    assert "auth" not in (amazon.docker.config / "config.json").read_text()


@pytest.mark.parametrize("way", ["classic", "buildkit"])
@pytest.mark.usefixtures("docker")
def test_docker_needs_no_login(build_in_ecr, monkeypatch, way):
    """Both of Docker's builders pull a base of another account and region, and push, with passwords that they are handed."""
    monkeypatch.setenv("METAFLOW_PREBUILT_DOCKER_BUILDER", way)
    build_in_ecr(LocalDockerBuildService())


def test_buildx_needs_no_login(amazon, docker, build_in_ecr, monkeypatch, tmp_path):
    """A BuildKit elsewhere is handed the same passwords, and keeps its cache in the registry with them."""
    trust = reaching(amazon.proxy, amazon.certificate)
    with (
        buildkit_daemon(tmp_path / "buildkit", registry="127.0.0.1:5000", environ=trust) as buildkit,
        remote_builder(docker, buildkit) as name,
    ):
        monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_BUILDER", name)
        monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_CACHE", "on")
        build_in_ecr(BuildxBuildService())
    assert open_repository(ECRRegistry().repository).resolve("buildcache")
