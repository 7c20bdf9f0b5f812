"""The registry ``ecr`` in front of a real registry, and what Docker pushes there."""

from __future__ import annotations

import os

import pytest

from prebuilt.docker import LocalDockerBuildService
from prebuilt.ecr import ECRRegistry
from prebuilt.oci.open import open_repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.conformance.materials import Materials, RecordingProgress, push_runnable_base
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.validate import validate

pytestmark = [pytest.mark.aws, pytest.mark.usefixtures("configured")]


@pytest.fixture
def configured(environ, tmp_path, monkeypatch):
    """Configure this process for the cloud; the registry's repositories are the test's own, and are not there yet."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "METAFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_PREBUILT_IMAGE_NAMESPACE", f"of/{tmp_path.name.lower().strip('_')}")
    yield
    close_connections()


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


def test_docker_pushes_without_a_login(amazon, tmp_path, monkeypatch):
    """The builder docker pushes with the password that the registry hands it: nobody has logged in."""
    for name, value in amazon.docker.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK", "host")
    registry = ECRRegistry()
    with PackageIndex().serving() as index, InMemoryRegistry() as others:
        materials = Materials(
            index=index,
            folder=tmp_path / "wheels",
            target=open_repository(registry.repository, registry.credentials_source),
            base=push_runnable_base(open_repository(others.repository("base")), tmp_path / "base"),
            stage=SuiteStage(),
        )
        spec = materials.spec(materials.wheel("one"))
        tag = registry.push_tag(spec.env_id)
        request = materials.request(spec, tag=tag.rpartition(":")[2], credentials=registry.credentials(tag))
        built = LocalDockerBuildService().build(request, RecordingProgress())
        assert registry.resolve(tag) == built
        validate(materials.target, built.digest, foreign=True)
    assert "auth" not in (amazon.docker.config / "config.json").read_text()
