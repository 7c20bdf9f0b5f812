"""The registry ``oci``."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.errors import SettingError, UnauthorizedError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plugins import IMAGE_REGISTRIES
from prebuilt.core.settings import Settings
from prebuilt.oci.namespace import image_namespace
from prebuilt.oci.oci_registry import OCIRegistry
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

SETTING = "METAFLOW_PREBUILT_REGISTRY"


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    close_connections()


class TestOCIRegistry(RegistryContract):
    """Every clause of the contract, over HTTP, with a login from Docker's configuration."""

    @pytest.fixture
    def new_registry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ImageRegistry]]:
        """Return the class, set up to use a registry that wants tokens."""
        auth = RegistryAuth(scheme="token", users={"ada": "secret"})
        with InMemoryRegistry(auth=auth) as server:
            log_in(tmp_path, server.host, "ada", "secret")
            monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
            monkeypatch.setenv(SETTING, f"{server.host}/team/flows")
            yield OCIRegistry

    @pytest.fixture
    def broken_registry(self, monkeypatch: pytest.MonkeyPatch) -> ImageRegistry:
        """Return one whose host refuses connections."""
        monkeypatch.setenv(SETTING, "127.0.0.1:1/team/flows")
        return OCIRegistry()


def log_in(folder: Path, host: str, user: str, password: str) -> None:
    """Write what ``docker login`` writes."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def settings(value: str) -> Settings:
    """Return settings that name a repository."""
    return Settings({SETTING: value}, {})


@pytest.mark.parametrize(
    "name",
    [
        "ghcr.io/my-team/metaflow-prebuilt",
        "team.azurecr.io/metaflow-prebuilt",
        "harbor.example.com:8443/project/metaflow-prebuilt",
        "quay.io/my-org/metaflow-prebuilt",
        "registry.gitlab.com/group/subgroup/project/metaflow-prebuilt",
        "localhost:5000/flows",
        "docker.io/ada/flows",
    ],
)
def test_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """METAFLOW_PREBUILT_IMAGE_REGISTRY=oci selects it, and images go where METAFLOW_PREBUILT_REGISTRY says."""
    monkeypatch.setenv(SETTING, name)
    registry = IMAGE_REGISTRIES.get("oci")
    assert isinstance(registry, OCIRegistry)
    assert registry.repository == name


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "it is not set"),
        ("https://ghcr.io/team/flows", "it is a URL"),
        ("ghcr.io", "has no repository"),
        ("ghcr.io/", "is no repository"),
        ("team/flows", "has no host"),
        ("ghcr.io/Team/Flows", "upper-case"),
        ("ghcr.io/team/flows:latest", "is no repository"),
    ],
)
def test_says_what_to_write(value: str, words: str) -> None:
    """What is missing or malformed is refused by the name of the setting, with an example."""
    with pytest.raises(SettingError) as caught:
        OCIRegistry(settings(value))
    assert SETTING in str(caught.value)
    assert words in caught.value.reason
    assert "ghcr.io/my-team/metaflow-prebuilt" in caught.value.remedy


def test_layouts_have_a_registry_of_their_own() -> None:
    """An image layout is refused with the settings that are meant for it."""
    with pytest.raises(SettingError) as caught:
        OCIRegistry(settings("oci:/srv/images"))
    assert caught.value.remedy == (
        "set METAFLOW_PREBUILT_IMAGE_REGISTRY=layout and METAFLOW_PREBUILT_LAYOUT=/srv/images"
    )


def test_wrong_login_is_an_error(tmp_path: Path) -> None:
    """A login that the registry refuses is an error that says whose it was, and where it is from."""
    with InMemoryRegistry(auth=RegistryAuth(scheme="token", users={"ada": "secret"})) as server:
        log_in(tmp_path, server.host, "ada", "old")
        environ = {SETTING: f"{server.host}/team/flows", "DOCKER_CONFIG": str(tmp_path)}
        registry = OCIRegistry(Settings(environ, {}))
        with pytest.raises(UnauthorizedError, match=r"user 'ada' from .*config\.json"):
            registry.resolve(f"{server.host}/team/flows:1")


def test_namespace() -> None:
    """The name below an account is metaflow-prebuilt, or what is set, which must be a name."""
    assert image_namespace(Settings({}, {})) == "metaflow-prebuilt"
    assert image_namespace(Settings({"METAFLOW_PREBUILT_IMAGE_NAMESPACE": "team/flows"}, {})) == "team/flows"
    for wrong in ("Flows", "flows:1", "/flows", "a b"):
        with pytest.raises(SettingError, match="METAFLOW_PREBUILT_IMAGE_NAMESPACE"):
            image_namespace(Settings({"METAFLOW_PREBUILT_IMAGE_NAMESPACE": wrong}, {}))
