"""The registry ``dockerhub``."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.errors import SettingError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plugins import IMAGE_REGISTRIES
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId
from prebuilt.dockerhub import DockerHubRegistry
from prebuilt.oci.docker_config import find_login
from prebuilt.oci.reference import split_repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

USER, NAMESPACE = "METAFLOW_PREBUILT_DOCKERHUB_USER", "METAFLOW_PREBUILT_IMAGE_NAMESPACE"


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    close_connections()


def log_in(folder: Path, server: str) -> None:
    """Write what ``docker login`` writes."""
    auth = base64.b64encode(b"ada:secret").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {server: {"auth": auth}}}))


class TestDockerHubRegistry(RegistryContract):
    """Every clause of the contract, in a private repository that wants tokens, as Docker Hub's do."""

    @pytest.fixture
    def new_registry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ImageRegistry]]:
        """Return what makes registries of one account on a server in this process."""
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        monkeypatch.setenv(USER, "ada")
        with InMemoryRegistry(auth=RegistryAuth(scheme="token", users={"ada": "secret"})) as server:
            log_in(tmp_path, server.host)
            yield lambda: DockerHubRegistry(host=server.host)

    @pytest.fixture
    def broken_registry(self) -> ImageRegistry:
        """Return one whose host refuses connections."""
        return DockerHubRegistry(Settings({USER: "ada"}, {}), host="127.0.0.1:1")


def test_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """METAFLOW_PREBUILT_IMAGE_REGISTRY=dockerhub selects it, and images go to the account's repository."""
    monkeypatch.setenv(USER, "my-team")
    registry = IMAGE_REGISTRIES.get("dockerhub")
    assert isinstance(registry, DockerHubRegistry)
    assert registry.repository == "docker.io/my-team/metaflow-prebuilt"
    assert registry.is_reachable_from_cluster()


def test_namespace_is_the_repository() -> None:
    """METAFLOW_PREBUILT_IMAGE_NAMESPACE names the repository below the account."""
    registry = DockerHubRegistry(Settings({USER: "ada", NAMESPACE: "flows"}, {}))
    assert registry.image_tag(EnvId("1" * 40, "2" * 40, "linux-64")).startswith("docker.io/ada/flows:v1-1111")


def test_says_that_the_user_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an account nothing is guessed: images would go to the official ones."""
    monkeypatch.delenv(USER, raising=False)
    with pytest.raises(SettingError, match=f"{USER}: it is not set.*set {USER}"):
        DockerHubRegistry()


@pytest.mark.parametrize("user", ["ada@example.com", "Ada", "ada/lovelace", "docker.io/ada", "-"])
def test_says_what_an_account_is(user: str) -> None:
    """What cannot be an account is refused by the name of the setting."""
    with pytest.raises(SettingError, match=f"{USER}.*Docker ID"):
        DockerHubRegistry(Settings({USER: user}, {}))


def test_namespace_has_one_part() -> None:
    """Docker Hub has no repositories below repositories, and says so too late and unclearly."""
    with pytest.raises(SettingError, match=f"{NAMESPACE}.*slash"):
        DockerHubRegistry(Settings({USER: "ada", NAMESPACE: "team/flows"}, {}))


def test_login_of_docker_is_found(tmp_path: Path) -> None:
    """The login that `docker login` writes without a host, under an address that no image has, is this registry's."""
    log_in(tmp_path, "https://index.docker.io/v1/")
    environ = {USER: "ada", "DOCKER_CONFIG": str(tmp_path)}
    registry = DockerHubRegistry(Settings(environ, {}))
    login = find_login(*split_repository(registry.repository), environ)
    assert login is not None
    assert (login.credentials.username, login.credentials.secret) == ("ada", "secret")
    assert registry.push_credentials() == {}
    assert registry.credentials(registry.repository) is None


def test_pull_secret() -> None:
    """A private repository's pull secret is handed to Kubernetes, as the list that Metaflow expects."""
    settings = Settings({USER: "ada", "METAFLOW_PREBUILT_IMAGE_PULL_SECRETS": "dockerhub"}, {})
    assert DockerHubRegistry(settings).pull_config("x:1") == {"image_pull_secrets": ["dockerhub"]}
