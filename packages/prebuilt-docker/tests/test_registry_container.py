"""The container of the registry ``local``, as far as no engine is needed; with real ones it is in the integration tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from prebuilt.core.errors import RegistryUnreachableError
from prebuilt.core.settings import Settings
from prebuilt.docker import registry_container
from prebuilt.docker.config import LocalRegistryConfig
from prebuilt.docker.registry_container import RegistryContainer, is_registry
from prebuilt.testing.engines.process import free_port
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.served import serving_http


class SomethingElse(BaseHTTPRequestHandler):
    """Says yes to everything, as development servers of web applications do."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing."""


@contextlib.contextmanager
def something_else() -> Iterator[str]:
    """Give ``127.0.0.1:port`` of a server that is no registry."""
    with serving_http(SomethingElse) as url:
        yield url.removeprefix("http://")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this process may be slow to answer."""
    monkeypatch.setattr(registry_container, "_ANSWER_TIMEOUT_S", 60.0)


def container(port: int, docker_host: str) -> RegistryContainer:
    """Return the container of a user with that engine."""
    return RegistryContainer(config=LocalRegistryConfig(port=port), settings=Settings({"DOCKER_HOST": docker_host}, {}))


@pytest.mark.parametrize("auth", [RegistryAuth(), RegistryAuth(scheme="basic", users={"ada": "x"})])
def test_registries_are_recognised(auth: RegistryAuth) -> None:
    """A registry is one whether it wants a login or not."""
    with InMemoryRegistry(auth=auth) as server:
        assert is_registry(server.host)


def test_others_are_not() -> None:
    """Neither a web server that says yes to everything, nor a port on which nobody listens, is a registry."""
    with something_else() as host:
        assert not is_registry(host)
    assert not is_registry(f"127.0.0.1:{free_port()}")


def test_a_registry_that_answers_is_used(tmp_path: Path) -> None:
    """What answers on the port is taken as it is: a second deploy asks no engine."""
    with InMemoryRegistry() as server:
        port = int(server.host.rpartition(":")[2])
        assert container(port, f"unix://{tmp_path}/docker.sock").ensure() == server.host


def test_no_engine(tmp_path: Path) -> None:
    """Where nothing answers and there is no Docker, the error says why, and which setting names a registry."""
    with pytest.raises(RegistryUnreachableError) as caught:
        container(free_port(), f"unix://{tmp_path}/docker.sock").ensure()
    assert "needs Docker: there is no such socket" in caught.value.reason
    assert "METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH" in caught.value.remedy


@pytest.mark.parametrize("host", ["ssh://ada@builder", "tcp://10.1.2.3:2376"])
def test_engine_elsewhere(host: str) -> None:
    """An engine on another machine is not asked for a port on our loopback."""
    with pytest.raises(RegistryUnreachableError, match="on another machine"):
        container(free_port(), host).ensure()


def test_a_second_deploy_imports_no_sdk() -> None:
    """Where the registry answers, its address costs one small request: the SDK of Docker, and what that needs, stay out."""
    program = (
        "import sys; from prebuilt.docker import LocalRegistry; from prebuilt.core.spec import EnvId;"
        "LocalRegistry().push_tag(EnvId('1' * 40, '2' * 40, 'linux-64'));"
        "print(sorted({'docker', 'requests', 'httpx2'} & set(sys.modules)))"
    )
    with InMemoryRegistry() as server:
        port = server.host.rpartition(":")[2]
        environ = {**os.environ, "METAFLOW_PREBUILT_LOCAL_REGISTRY_PORT": port}
        done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
