"""Builders push to a real registry that takes tokens of Google's, which the tests play: native, and a real Docker Engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.errors import ForbiddenError
from prebuilt.core.lock import Wheel
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId, ImageSpec
from prebuilt.gcr import GCRRegistry
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.open import open_repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance.materials import Materials, RecordingProgress, push_small_base
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.google_api import PROJECT
from prebuilt.testing.google_cloud import GoogleCloud, google_cloud
from prebuilt.testing.google_registry import google_registry
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.validate import validate

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
        for name, value in {**cloud.environ, "HOME": str(tmp_path), "METAFLOW_HOME": str(tmp_path / "none")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DOCKER_CONFIG", raising=False)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", host)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", PROJECT)
        yield Google(cloud=cloud, host=host)
        close_connections()


@pytest.fixture
def registry(google: Google) -> GCRRegistry:
    """Return the registry."""
    del google
    return GCRRegistry()


@pytest.fixture
def materials(registry: GCRRegistry, tmp_path: Path) -> Iterator[Materials]:
    """Return materials whose target is the registry's repository; the base is in a layout."""
    with PackageIndex().serving() as index:
        yield Materials(
            index=index,
            folder=tmp_path / "wheels",
            target=open_repository(registry.repository, registry.credentials_source),
            base=push_small_base(open_repository(f"oci:{tmp_path / 'base'}")),
        )


@pytest.fixture
def build(registry: GCRRegistry, materials: Materials, tmp_path: Path) -> Callable[..., ImageSpec]:
    """Return what bakes wheels as a new machine would, asking the registry as the bake does; it returns the spec."""
    made: list[None] = []

    def build(*wheels: Wheel) -> ImageSpec:
        made.append(None)
        spec = materials.spec(*wheels)
        tag = registry.push_tag(spec.env_id)
        request: BuildRequest = materials.request(
            spec, tag=tag.rpartition(":")[2], credentials=registry.credentials(tag)
        )
        settings = Settings(
            {**Settings.load().environ, "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / f"{len(made)}")}, {}
        )
        built = NativeBuilder(settings).build(request, RecordingProgress())
        assert registry.resolve(tag) == built
        validate(materials.target, built.digest)
        return spec

    return build


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


def test_a_denied_push_is_an_error(google: Google, materials: Materials, build: Callable[..., ImageSpec]) -> None:
    """A permission that is taken away in the meantime ends the push, with Google's own words."""
    build(materials.wheel("one"))
    google.cloud.api.denied.add(UPLOAD)
    with pytest.raises(ForbiddenError, match=UPLOAD):
        GCRRegistry().documents().put("lock-1", b"{}")


def test_nobody_is_let_in_without_a_token(
    google: Google, registry: GCRRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is real about its tokens: who has none may not even look."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.raises(ForbiddenError, match="downloadArtifacts"):
        GCRRegistry().resolve(registry.push_tag(EnvId("1" * 40, "2" * 40, "linux-64")))


@pytest.mark.docker
def test_docker_pushes_with_the_token_that_it_is_handed(
    google: Google, registry: GCRRegistry, docker_current: Docker, tmp_path: Path
) -> None:
    """A real engine takes user and token as they are, and what it pushed is there for us."""
    tag = registry.push_tag(EnvId("1" * 40, "2" * 40, "linux-64"))
    credentials = registry.credentials(tag)
    assert credentials is not None
    auth = base64.b64encode(f"{credentials.username}:{credentials.secret}".encode()).decode()
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auths": {google.host: {"auth": auth}}}))
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /Dockerfile\n")
    docker_current.ask("build", "--tag", tag, str(context), environ=[("DOCKER_BUILDKIT", "0")])
    docker_current.ask("push", tag, environ=[("DOCKER_CONFIG", str(folder))])
    pushed = registry.resolve(tag)
    assert pushed is not None
    docker_current.ask("pull", f"{registry.repository}@{pushed.digest}", environ=[("DOCKER_CONFIG", str(folder))])
