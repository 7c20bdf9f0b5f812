"""The registry ``ecr`` in front of a real registry, and what Docker's builders pull and push there."""

from __future__ import annotations

import os

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import BaseImageError, RegistryError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.docker import LocalDockerBuildService
from prebuilt.ecr import ECRRegistry
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.media_types import OCI_INDEX
from prebuilt.oci.open import open_repository
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.engines.aws import OTHER_REGION, reaching
from prebuilt.testing.engines.buildkit import buildkit_daemon
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.engines.wanted import wanted_engine

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


def test_blobs_go_while_they_are_written(push_while_written):
    """As `docker push` sends them."""
    registry = ECRRegistry()
    registry.credentials(registry.repository)  # which makes the repository
    push_while_written(open_repository(registry.repository, registry.credentials_source))


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


@pytest.fixture
def distant_buildkit(amazon, docker, monkeypatch, tmp_path):
    """Have the builder buildx use a BuildKit that nobody has logged in, with a cache beside the images."""
    trust = reaching(amazon.proxy, amazon.certificate)
    with (
        wanted_engine(),
        buildkit_daemon(tmp_path / "buildkit", registry="127.0.0.1:5000", environ=trust) as buildkit,
        remote_builder(docker, buildkit) as name,
    ):
        monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_BUILDER", name)
        monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_CACHE", "on")
        yield


@pytest.mark.usefixtures("distant_buildkit")
def test_buildx_needs_no_login(build_in_ecr):
    """A BuildKit elsewhere is handed the same passwords, and keeps its cache in the registry with them."""
    build_in_ecr(BuildxBuildService())
    assert open_repository(ECRRegistry().repository).resolve("buildcache")


def test_a_repository_in_another_region_is_named(amazon, monkeypatch, tmp_path):
    """What is in one region is not in another: to push there, or to build on it, says in which region it was looked for."""
    name = os.environ["METAFLOW_PREBUILT_IMAGE_NAMESPACE"]
    amazon.client("ecr").create_repository(repositoryName=name)
    monkeypatch.setenv("METAFLOW_PREBUILT_ECR_REGION", OTHER_REGION)
    monkeypatch.setenv("METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY", "off")
    registry = ECRRegistry()
    bases = BaseImageLookup(settings=Settings.load(), documents=None, cache=FolderDocuments(tmp_path))
    with pytest.raises(RegistryError, match=rf"NAME_UNKNOWN.* in {OTHER_REGION}: .*METAFLOW_PREBUILT_ECR_REGION"):
        open_repository(registry.repository).put_manifest("v1", OCI_INDEX, b'{"schemaVersion":2,"manifests":[]}')
    with pytest.raises(BaseImageError, match=f"it is not there, in {OTHER_REGION}"):
        bases.get(f"{registry.repository}:1", Platform.parse("linux/amd64"))
