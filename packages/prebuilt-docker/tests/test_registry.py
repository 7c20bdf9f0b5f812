"""The registry ``local``, by its addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.bake import pinned
from prebuilt.core.errors import SettingError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plugins import IMAGE_REGISTRIES
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId
from prebuilt.docker import LocalRegistry
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.registry import InMemoryRegistry

PUSH, PULL = "METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH", "METAFLOW_PREBUILT_LOCAL_REGISTRY_PULL"
NAMESPACE = "METAFLOW_PREBUILT_IMAGE_NAMESPACE"
ENV_ID = EnvId("1" * 40, "2" * 40, "linux-64")


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    close_connections()


def local(**environ: str) -> LocalRegistry:
    """Return a registry of these settings."""
    return LocalRegistry(Settings(environ, {}))


class TestLocalRegistry(RegistryContract):
    """Every clause of the contract, over HTTP, where tasks know the registry by another address."""

    @pytest.fixture
    def new_registry(self) -> Iterator[Callable[[], ImageRegistry]]:
        """Return what makes registries that push to a server on loopback."""
        with InMemoryRegistry() as server:
            yield lambda: local(**{PUSH: server.host, PULL: "registry.lan:5000/mirror"})

    @pytest.fixture
    def broken_registry(self) -> ImageRegistry:
        """Return one whose host refuses connections."""
        return local(**{PUSH: "127.0.0.1:1"})


def test_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """METAFLOW_PREBUILT_IMAGE_REGISTRY=local selects it, and nothing is started or asked by that."""
    for name in (PUSH, PULL):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    registry = IMAGE_REGISTRIES.get("local")
    assert isinstance(registry, LocalRegistry)
    assert not registry.is_reachable_from_cluster()
    assert registry.pull_config("x:1") == {}


@pytest.mark.parametrize(
    ("environ", "push", "pull"),
    [
        ({PUSH: "10.0.0.7:5000"}, "10.0.0.7:5000/metaflow-prebuilt", "10.0.0.7:5000/metaflow-prebuilt"),
        ({PULL: "registry:5000"}, "registry:5000/metaflow-prebuilt", "registry:5000/metaflow-prebuilt"),
        (
            {PUSH: "localhost:5000", PULL: "registry.lan/team/", NAMESPACE: "flows"},
            "localhost:5000/flows",
            "registry.lan/team/flows",
        ),
        ({PUSH: "[fd00::1]:5000"}, "[fd00::1]:5000/metaflow-prebuilt", "[fd00::1]:5000/metaflow-prebuilt"),
    ],
)
def test_addresses(environ: dict[str, str], push: str, pull: str) -> None:
    """Push and pull addresses may differ, may have paths, and serve for each other; the tag is one."""
    registry = local(**environ)
    tag = f"v1-{'1' * 40}-{'2' * 40}-linux-64"
    assert registry.push_tag(ENV_ID) == f"{push}:{tag}"
    assert registry.image_tag(ENV_ID) == f"{push}:{tag}"
    assert registry.pull_tag(ENV_ID) == f"{pull}:{tag}"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({PUSH: "localhost:5000"}, False),
        ({PUSH: "10.0.0.7:5000", PULL: "127.0.0.1:5000"}, False),
        ({PUSH: "[::1]:5000"}, False),
        ({PUSH: "localhost:5000", PULL: "kind-registry:5000"}, True),
        ({PUSH: "10.0.0.7:5000"}, True),
    ],
)
def test_reachable_from_a_cluster(environ: dict[str, str], expected: bool) -> None:  # noqa: FBT001 - a parameter
    """Loopback is another place on each machine: what is pulled from there is for this one alone."""
    assert local(**environ).is_reachable_from_cluster() is expected


def test_what_is_pulled_is_asked_for_where_it_was_pushed() -> None:
    """A reference for tasks, whose address may mean nothing here, is resolved by the address for pushing."""
    with InMemoryRegistry() as server:
        registry = local(**{PUSH: server.host, PULL: "registry.lan:5000"})
        stored = RegistryContract().store(registry, registry.push_tag(ENV_ID))
        for reference in (registry.pull_tag(ENV_ID), pinned(registry.pull_tag(ENV_ID), stored.digest)):
            found = registry.resolve(reference)
            assert found is not None
            assert found.digest == stored.digest


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({PUSH: "http://localhost:5000"}, f"{PUSH}.*it is a URL.*write host:port"),
        ({PULL: "registry"}, f"{PULL}.*write the port.*registry:5000"),
        ({PUSH: "localhost:5000/Team"}, f"{PUSH}.*upper-case"),
        ({"METAFLOW_PREBUILT_LOCAL_REGISTRY_PORT": "70000"}, "LOCAL_REGISTRY_PORT.*is not a port"),
    ],
)
def test_malformed_addresses(environ: dict[str, str], words: str) -> None:
    """An address that is none is refused by the name of its setting, with an example."""
    with pytest.raises(SettingError, match=words):
        local(**environ)


def test_without_docker(tmp_path: Path) -> None:
    """With neither an address nor an engine, the first question says both."""
    registry = local(DOCKER_HOST=f"unix://{tmp_path}/docker.sock", METAFLOW_PREBUILT_LOCAL_REGISTRY_PORT="1")
    with pytest.raises(Exception, match=f"127.0.0.1:1.*needs Docker.*{PUSH}"):
        registry.image_tag(ENV_ID)
