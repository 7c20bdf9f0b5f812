"""What our registries have in common, over a layout and over a registry in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import (
    BaseImageError,
    InvalidValueError,
    RegistryError,
    RegistryUnreachableError,
    SettingError,
)
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.platforms import Platform
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId
from prebuilt.oci import open as opening
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import parse_reference
from prebuilt.oci.registry import RepositoryRegistry
from prebuilt.oci.repository import Repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.engines.process import free_port
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

_: type[ImageRegistry] = RepositoryRegistry

ENV_ID = EnvId("a" * 40, "b" * 40, "linux-aarch64")


@pytest.fixture(params=["layout", "registry"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The name of a repository of either kind."""
    if request.param == "layout":
        yield f"oci:{tmp_path}/layout"
        return
    with InMemoryRegistry() as server:
        yield server.repository("images")
        close_connections()


def put_image(repository: Repository, tag: str, config: bytes = b"{}") -> str:
    """Store an image without layers; return its digest."""
    manifest = ImageManifest(config=push_bytes(repository, config, OCI_CONFIG), layers=())
    return repository.put_manifest(tag, OCI_MANIFEST, manifest.to_bytes()).digest


def test_tag_is_made_of_the_identities() -> None:
    """The tag holds both identities and the platform, and is one that every registry accepts."""
    tag = RepositoryRegistry("localhost:5000/me/images").image_tag(ENV_ID)
    assert tag == f"localhost:5000/me/images:v1-{'a' * 40}-{'b' * 40}-linux-aarch64"
    parsed = parse_reference(tag)
    assert parsed.tag is not None
    assert len(parsed.tag) <= 128
    assert RepositoryRegistry("oci:/some/folder").push_tag(ENV_ID).startswith("oci:/some/folder:v1-a")


def test_name_is_written_in_full() -> None:
    """The repository's name is completed as Docker does, and a wrong one is refused at once."""
    assert RepositoryRegistry("someone/images").repository == "docker.io/someone/images"
    with pytest.raises(InvalidValueError):
        RepositoryRegistry("Some One")


def test_resolve(name: str) -> None:
    """A tag resolves to what is served for it, to None if nothing is; references of other repositories do, too."""
    registry = RepositoryRegistry(name)
    tag = registry.image_tag(ENV_ID)
    assert registry.resolve(tag) is None
    assert not registry.image_exists(tag)
    digest = put_image(open_repository(name), parse_reference(tag).identifier)
    found = registry.resolve(tag)
    assert found is not None
    assert found.digest == digest
    assert registry.resolve(f"{name}@{digest}") == found
    assert registry.image_exists(tag)
    assert RepositoryRegistry("oci:/nowhere/else").resolve(tag) == found


def test_documents(name: str) -> None:
    """Documents are kept in the repository itself."""
    RepositoryRegistry(name).documents().put("lock-1", b"{}")
    assert RepositoryRegistry(name).documents().get("lock-1") == b"{}"
    assert open_repository(name).resolve("lock-1") is not None


def test_base_image_identity(name: str) -> None:
    """A base image is identified by the digest of its manifest for the platform."""
    repository = open_repository(name)
    amd64, arm64 = put_image(repository, "amd64", b'{"a":1}'), put_image(repository, "arm64", b'{"a":2}')
    entries: list[dict[str, Any]] = []
    for architecture in ("amd64", "arm64"):
        descriptor = repository.resolve(architecture)
        assert descriptor is not None
        entries.append(descriptor.to_json() | {"platform": {"os": "linux", "architecture": architecture}})
    repository.put_manifest("both", OCI_INDEX, json.dumps({"schemaVersion": 2, "manifests": entries}).encode())

    registry = RepositoryRegistry(name)
    assert registry.base_image_identity(f"{name}:both", "linux-64") == amd64
    assert registry.base_image_identity(f"{name}:both", "linux/arm64") == arm64
    assert registry.base_image_identity(f"{name}:amd64", "linux-64") == amd64
    with pytest.raises(BaseImageError, match="linux/amd64, linux/arm64 only"):
        registry.base_image_identity(f"{name}:both", "osx-arm64")
    with pytest.raises(BaseImageError, match="does not have it"):
        registry.base_image_identity(f"{name}:absent", "linux-64")


def test_labels(name: str) -> None:
    """What an image says of itself is read from its config, behind an index, too."""
    repository, registry = open_repository(name), RepositoryRegistry(name)
    config = {"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": []}, "config": {"Labels": {"is": "it"}}}
    put_image(repository, "one", json.dumps(config).encode())
    there = repository.resolve("one")
    assert there is not None
    entry = there.to_json() | {"platform": {"os": "linux", "architecture": "arm64"}}
    repository.put_manifest("index", OCI_INDEX, json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    arm64 = Platform.parse("linux/arm64")
    for tag in ("one", "index"):
        assert registry.labels(f"{name}:{tag}", arm64) == {"is": "it"}
    assert registry.labels(f"{name}:absent", arm64) == {}
    with pytest.raises(BaseImageError, match="linux/arm64 only"):
        registry.labels(f"{name}:index", Platform.parse("linux/amd64"))
    put_image(repository, "other", b"{}")
    with pytest.raises(InvalidValueError, match="an image config"):
        registry.labels(f"{name}:other", arm64)


def test_a_registry_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers an error comes, never None."""
    name = f"127.0.0.1:{free_port()}/images"
    impatient = RegistryRepository(name, backoff=Backoff(attempts=1))
    monkeypatch.setattr(opening, "_registry_repository", lambda *_: impatient)
    with pytest.raises(RegistryUnreachableError):
        RepositoryRegistry(name).resolve(f"{name}:v1")
    close_connections()


def test_what_tasks_pull_is_asked_for_at_its_own_address(caplog: pytest.LogCaptureFixture) -> None:
    """An address that answers must have the image; one that nobody answers at, or that wants a login, proves nothing."""
    closed_to_us = RegistryAuth(scheme="basic", users={"nobody": "else"})
    with InMemoryRegistry() as server, InMemoryRegistry() as other, InMemoryRegistry(auth=closed_to_us) as closed:
        registry = RepositoryRegistry(server.repository("images"))
        digest = put_image(open_repository(server.repository("images")), "v1")
        registry.check_pull(f"{server.repository('images')}@{digest}")
        for elsewhere in (server.repository("absent"), other.repository("images")):
            with pytest.raises(RegistryError, match=r"find the image where tasks pull it.*does not have it"):
                registry.check_pull(f"{elsewhere}@{digest}")
        with caplog.at_level("INFO"):
            registry.check_pull(f"{closed.repository('images')}@{digest}")
        assert "cannot be told from here" in caplog.text
        close_connections()
    registry.check_pull(f"127.0.0.1:{free_port()}/images@{digest}")
    registry.check_pull(f"no-such-host.invalid/images@{digest}")


def test_what_needs_no_cloud() -> None:
    """Nothing is needed to pull or push, until a backend says otherwise; a folder cannot be reached from elsewhere."""
    registry = RepositoryRegistry("localhost/images")
    assert registry.pull_config("x") == {}
    assert registry.push_credentials() == {}
    assert registry.is_reachable_from_cluster()
    assert not RepositoryRegistry("oci:/folder").is_reachable_from_cluster()


def test_credentials_are_for_the_own_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend's credentials go to its own repository, once, and to no other."""
    opened: list[tuple[str, Credentials | None]] = []

    def note(name: str, credentials: Credentials | None, *_: object) -> Repository:
        opened.append((name, credentials))
        return LayoutRepository(tmp_path / "layout")

    secret = Credentials(username="me", secret="secret")

    class Cloud(RepositoryRegistry):
        def credentials(self, reference: str) -> Credentials | None:
            return secret

    monkeypatch.setattr(opening, "_registry_repository", note)
    cloud = Cloud("cloud.example/images")
    for reference in ("cloud.example/images:a", "cloud.example/images:b", "elsewhere.example/base:c"):
        assert cloud.resolve(reference) is None
    assert opened == [("cloud.example/images", secret), ("elsewhere.example/base", None)]


def test_a_name_may_have_to_be_asked_for() -> None:
    """Where the repository's name is not known at once, it is found out when it is needed, once, and checked."""
    asked: list[None] = []

    def find() -> str:
        asked.append(None)
        return "cloud.example/images" if len(asked) == 1 else "elsewhere.example/images"

    registry = RepositoryRegistry(find)
    assert asked == []
    assert registry.repository == registry.repository == "cloud.example/images"
    with pytest.raises(InvalidValueError):
        _ = RepositoryRegistry(lambda: "Not A Name").repository


def test_a_layout_needs_no_http_client() -> None:
    """Over a layout the HTTP client, which is slow to import, stays unimported."""
    code = (
        "import sys; from prebuilt.oci.registry import RepositoryRegistry as R;"
        "r = R('oci:/nowhere'); assert r.resolve('oci:/nowhere:x') is None; assert r.documents().get('x') is None;"
        "heavy = {'httpx2', 'httpx', 'zstandard', 'isal'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_pull_secrets() -> None:
    """Image pull secrets come from their setting as a list, a new one each time; without it nothing is said."""
    settings = Settings({"METAFLOW_PREBUILT_IMAGE_PULL_SECRETS": "hub, team-pull,, hub"}, {})
    registry = RepositoryRegistry("ghcr.io/team/flows", settings=settings)
    config = registry.pull_config("ghcr.io/team/flows:1")
    assert config == {"image_pull_secrets": ["hub", "team-pull"]}
    config["image_pull_secrets"].clear()
    assert registry.pull_config("ghcr.io/team/flows:1") == {"image_pull_secrets": ["hub", "team-pull"]}
    assert RepositoryRegistry("ghcr.io/team/flows", settings=Settings({}, {})).pull_config("x:1") == {}


def test_malformed_pull_secrets() -> None:
    """What no secret can be called is refused at once, by the name of the setting."""
    with pytest.raises(SettingError, match=r"METAFLOW_PREBUILT_IMAGE_PULL_SECRETS.*'my secret'"):
        RepositoryRegistry("a/b", settings=Settings({"METAFLOW_PREBUILT_IMAGE_PULL_SECRETS": "my secret"}, {}))
