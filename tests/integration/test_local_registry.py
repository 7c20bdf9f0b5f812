"""The registry ``local`` in its own container, on a real Docker Engine."""

from __future__ import annotations

import contextlib
import http.server
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from prebuilt.core.errors import RegistryError
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId
from prebuilt.docker import LocalRegistry
from prebuilt.docker.registry_container import LABEL, NAME, RegistryContainer, is_registry
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.machine_image import import_registry_image
from prebuilt.testing.engines.process import free_port
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.served import serving_http

pytestmark = pytest.mark.docker

IMAGE, PORT = "METAFLOW_PREBUILT_LOCAL_REGISTRY_IMAGE", "METAFLOW_PREBUILT_LOCAL_REGISTRY_PORT"
ENV_ID = EnvId("1" * 40, "2" * 40, "linux-64")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine with a Docker Engine on which the registry was never started."""

    docker: Docker
    environ: dict[str, str]

    def registry(self) -> LocalRegistry:
        """Return the registry, as a new process has it."""
        return LocalRegistry(Settings(self.environ, {}))

    def container(self, *, start_timeout_s: float = 30.0) -> RegistryContainer:
        """Return the registry's container."""
        container = self.registry()._container
        return replace(container, start_timeout_s=start_timeout_s)

    def having(self, **environ: str) -> Machine:
        """Return the machine with other settings."""
        return replace(self, environ={**self.environ, **environ})

    def ask(self, *arguments: str) -> str:
        """Return what the docker command says."""
        return self.docker.ask(*arguments).strip()

    @property
    def containers(self) -> list[str]:
        """The containers of the registry, running or not."""
        return self.ask("ps", "--all", "--quiet", f"--filter=label={LABEL}").split()


@pytest.fixture(scope="session")
def registry_image(docker_bridged: Docker) -> str:
    """An image like ``registry:2``, which cannot be pulled here."""
    with wanted_engine():
        return import_registry_image(docker_bridged)


@pytest.fixture
def machine(docker_bridged: Docker, registry_image: str) -> Iterator[Machine]:
    """Return a machine with the image at hand and a free port; afterwards there is no container, and no volume."""
    machine = Machine(
        docker=docker_bridged, environ={**docker_bridged.environ, IMAGE: registry_image, PORT: str(free_port())}
    )
    yield machine
    close_connections()
    if machine.ask("ps", "--all", "--quiet", f"--filter=name=^{NAME}$"):
        machine.ask("rm", "--force", NAME)
    if NAME in machine.ask("volume", "ls", "--quiet").split():
        machine.ask("volume", "rm", NAME)


@contextlib.contextmanager
def something_on(port: str) -> Iterator[None]:
    """Have a server that is no registry listen on a port of loopback."""
    with serving_http(http.server.BaseHTTPRequestHandler, port=int(port)):
        yield


def test_starts_with_the_first_question_and_keeps(machine: Machine) -> None:
    """Nothing is started before it is needed; the container is on loopback alone, is reused, and keeps images when it is removed."""
    registry = machine.registry()
    assert not registry.is_reachable_from_cluster()
    assert machine.containers == []

    tag = registry.push_tag(ENV_ID)
    assert tag.startswith(f"127.0.0.1:{machine.environ[PORT]}/metaflow-prebuilt:v1-")
    assert registry.resolve(tag) is None
    stored = RegistryContract().store(registry, tag)
    assert machine.ask("port", NAME) == f"5000/tcp -> 127.0.0.1:{machine.environ[PORT]}"
    first = machine.containers

    assert getattr(machine.registry().resolve(tag), "digest", None) == stored.digest
    assert machine.containers == first

    machine.ask("rm", "--force", NAME)
    assert getattr(machine.registry().resolve(machine.registry().push_tag(ENV_ID)), "digest", None) == stored.digest


def test_says_that_a_container_was_started(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """Once, when it is made: it stays, and who has it should know. What only comes back is not said again."""
    machine.container().ensure()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    machine.ask("stop", NAME)
    caplog.clear()
    machine.container().ensure()
    assert [
        f"the container {NAME}, which was started on 127.0.0.1:{machine.environ[PORT]}" in text for text in said
    ] == [True]
    assert caplog.records == []


def test_engine_pushes_and_pulls(machine: Machine, registry_image: str) -> None:
    """The engine itself takes the registry's address without any configuration."""
    tag = machine.registry().push_tag(ENV_ID)
    machine.ask("tag", registry_image, tag)
    machine.ask("push", tag)
    machine.ask("rmi", tag)
    found = machine.registry().resolve(tag)
    assert found is not None
    machine.ask("pull", f"{tag.rpartition(':')[0]}@{found.digest}")


@pytest.mark.parametrize("state", ["stop", "pause", "kill"])
def test_is_started_again(machine: Machine, state: str) -> None:
    """A container that was stopped, paused or killed serves the next deploy."""
    host = machine.container().ensure()
    machine.ask(state, NAME)
    before = machine.containers
    assert machine.container().ensure() == host
    assert is_registry(host)
    assert machine.containers == before


def test_keeps_the_port_that_it_was_made_with(machine: Machine) -> None:
    """Another port in the settings does not move a container that is there: its images have its address in their names."""
    host = machine.container().ensure()
    machine.ask("stop", NAME)
    assert machine.having(**{PORT: str(free_port())}).container().ensure() == host


def test_two_at_once_meet(machine: Machine) -> None:
    """Deploys that start it at the same time share one container."""
    with ThreadPoolExecutor(4) as pool:
        hosts = set(pool.map(lambda _: machine.container().ensure(), range(4)))
    assert hosts == {f"127.0.0.1:{machine.environ[PORT]}"}
    assert len(machine.containers) == 1


def test_taken_port(machine: Machine) -> None:
    """A port that something else has is an error that names the setting, and leaves no container behind."""
    with something_on(machine.environ[PORT]), pytest.raises(RegistryError) as caught:
        machine.container().ensure()
    assert "something else than a registry has that port" in caught.value.reason
    assert f"set {PORT}" in caught.value.remedy
    assert machine.containers == []


def test_image_that_cannot_be_pulled(machine: Machine) -> None:
    """An image that is neither here nor to be had is an error with the engine's words and the setting for a mirror."""
    elsewhere = machine.having(**{IMAGE: f"127.0.0.1:{free_port()}/library/registry:2"})
    with pytest.raises(RegistryError) as caught:
        elsewhere.container().ensure()
    assert "pull the image of the local registry" in caught.value.tried
    assert "connection refused" in caught.value.reason
    assert IMAGE in caught.value.remedy
    assert machine.containers == []


def test_container_that_ends_at_once(machine: Machine, registry_image: str) -> None:
    """A container that does not serve is an error with its last lines."""
    broken = f"{registry_image.partition(':')[0]}:broken"
    made = machine.ask("create", "--entrypoint=/bin/sh", registry_image, "-c", "echo no config >&2; exit 3")
    machine.ask("commit", made, broken)
    machine.ask("rm", made)
    with pytest.raises(RegistryError) as caught:
        machine.having(**{IMAGE: broken}).container(start_timeout_s=5).ensure()
    assert "no config" in caught.value.reason
    assert f"docker rm -f {NAME}" in caught.value.remedy


def test_container_of_somebody_else(machine: Machine, registry_image: str) -> None:
    """A container of that name which we did not make is left alone."""
    machine.ask("create", f"--name={NAME}", registry_image)
    with pytest.raises(RegistryError, match="did not make"):
        machine.container().ensure()
    assert machine.ask("inspect", "--format={{.State.Status}}", NAME) == "created"
