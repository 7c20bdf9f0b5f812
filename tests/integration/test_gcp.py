"""Builders push to a real registry that takes tokens of Google's, which the tests play: native, and those with an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.errors import ForbiddenError, PrebuiltError
from prebuilt.core.spec import PREFIX, EnvId, ImageSpec
from prebuilt.docker import LocalDockerBuildService
from prebuilt.gcr import GCRRegistry
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance.materials import (
    SITE_PACKAGES,
    Materials,
    push_runnable_base,
)
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.engines.buildkit import buildkit_daemon
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.google_api import PROJECT
from prebuilt.testing.google_cloud import GoogleCloud, google_cloud
from prebuilt.testing.google_registry import google_registry
from prebuilt.testing.validate import inspect_image

pytestmark = pytest.mark.gcp

UPLOAD = "artifactregistry.repositories.uploadArtifacts"


@dataclass(frozen=True, kw_only=True)
class Google:
    """What Google knows, and the real registry's host."""

    cloud: GoogleCloud
    host: str


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """Give an empty registry that this process finds, with a service account's key."""
    with google_cloud(tmp_path) as cloud, wanted_engine(), google_registry(tmp_path / "real", cloud.api) as host:
        nothing = str(tmp_path / "none")
        for name, value in {**cloud.environ, "DOCKER_CONFIG": nothing, "METAFLOW_HOME": nothing}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", host)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", PROJECT)
        yield Google(cloud=cloud, host=host)
        close_connections()


@pytest.fixture
def registry(google: Google) -> GCRRegistry:
    """Return the registry."""
    del google
    return GCRRegistry()


def test_an_image_is_pushed_without_a_login(
    google: Google, registry: GCRRegistry, materials: Materials, build: Callable[..., ImageSpec]
) -> None:
    """The image is complete, a second one shares its layers, documents are kept, and Google gave one token for all."""
    shared = materials.wheel("shared", size_bytes=4_000_000)
    build(shared, materials.wheel("one"))
    build(shared, materials.wheel("two"))
    registry.documents().put("lock-1", b"{}")
    assert GCRRegistry().documents().get("lock-1") == b"{}"
    assert google.cloud.api.count("POST /token") == 1


def test_blobs_go_while_they_are_written(
    materials: Materials, push_while_written: Callable[[Repository], None]
) -> None:
    """As `docker push` sends them."""
    push_while_written(materials.target)


def test_a_denied_push_is_an_error(google: Google, materials: Materials, build: Callable[..., ImageSpec]) -> None:
    """A permission that is missing ends the push, with Google's own words; once it is granted the push goes through."""
    one = materials.wheel("one")
    google.cloud.api.denied.add(UPLOAD)
    with pytest.raises(ForbiddenError, match=UPLOAD):
        build(one)
    google.cloud.api.denied.clear()
    build(one)


def test_nobody_is_let_in_without_a_token(
    google: Google, registry: GCRRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is real about its tokens: who has none may not even look."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.raises(ForbiddenError, match="downloadArtifacts"):
        GCRRegistry().resolve(registry.push_tag(EnvId("1" * 40, "2" * 40, "linux-64")))


class TestEngines:
    """Builders whose engine pulls and pushes by itself. Nobody has logged in to the registry."""

    @pytest.fixture(params=["docker", "buildx"])
    def builder(
        self,
        request: pytest.FixtureRequest,
        google: Google,
        docker_current: Docker,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[DockerBuildService]:
        """Return each of them."""
        for name, value in docker_current.environ.items():
            monkeypatch.setenv(name, value)
        if request.param == "docker":
            monkeypatch.setenv("METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK", "host")
            yield LocalDockerBuildService()
            return
        with (
            wanted_engine(),
            buildkit_daemon(tmp_path / "buildkit", registry=google.host) as daemon,
            remote_builder(docker_current, daemon) as name,
        ):
            monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_BUILDER", name)
            yield BuildxBuildService()

    @pytest.mark.docker
    @pytest.mark.buildx
    def test_they_are_handed_a_token(
        self,
        google: Google,
        registry: GCRRegistry,
        materials: Materials,
        builder: DockerBuildService,
        tmp_path: Path,
    ) -> None:
        """With it they pull a private base image and push; where it opens too little, the permission is named."""
        bases = open_repository(f"{google.host}/{PROJECT}/bases", registry.credentials_source)
        ours = replace(materials, base=push_runnable_base(bases, tmp_path / "runnable"), stage=SuiteStage())

        built = ours.deploy(builder, registry, ours.spec(ours.wheel("one")))
        assert built is not None
        served = inspect_image(ours.target, built.digest)
        assert f"{PREFIX}/{SITE_PACKAGES}/one/__init__.py".lstrip("/") in served.tree
        assert google.cloud.api.count("POST /token") == 1
        google.cloud.api.denied.add(UPLOAD)
        with pytest.raises(PrebuiltError, match=UPLOAD):
            ours.deploy(builder, registry, ours.spec(ours.wheel("two")))
