"""The Docker Engines that other tests stand on: they build, push and run, and leave nothing behind."""

from __future__ import annotations

import contextlib
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.machine_image import import_registry_image
from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.image_tree import Tree
from prebuilt.testing.mounts import mounts_with
from prebuilt.testing.processes import commands_with
from prebuilt.testing.served import serving_http
from prebuilt.testing.waiting import eventually, eventually_gone

pytestmark = pytest.mark.docker

BUILDERS = {"classic": "0", "buildkit": "1"}


class Hello(BaseHTTPRequestHandler):
    """Says hello."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Say nothing to the terminal."""


def traces(docker: Docker) -> list[str]:
    """Return the processes, mounts, network links and rules that are an engine's."""
    folder = str(Path(docker.host.removeprefix("unix://")).parent)
    rules = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout.splitlines()
    links = [path.name for path in Path("/sys/class/net").iterdir()]
    own = [docker.bridge.name, str(docker.bridge.address.network)] if docker.bridge else []
    return [
        *commands_with(folder),
        *mounts_with(folder),
        *(line for line in [*rules, *links] if any(name in line for name in own)),
    ]


@pytest.mark.parametrize("builder", BUILDERS)
def test_two_stages_are_built_and_pushed(
    any_docker: Docker, registry_host: str, two_stages: Path, builder: str, pushed_tree: Callable[..., Tree]
):
    """Each release builds with both of its builders, and what it pushes is a sound image that runs."""
    version = any_docker.version.partition("+")[0]
    image = f"{registry_host}/docker/{builder}:{version}"
    environ = [("DOCKER_BUILDKIT", BUILDERS[builder])]
    any_docker.ask("build", "--network=host", f"--tag={image}", str(two_stages), environ=environ)
    any_docker.ask("push", image)
    assert pushed_tree(f"{registry_host}/docker/{builder}", version)["opt/made"].kind == "file"
    assert any_docker.ask("run", "--rm", "--network=host", image, "cat", "/opt/made") == "made by Python"


def test_releases_differ(docker_oldest: Docker, docker_current: Docker):
    """One engine is of the current release; each has the command line of its own release."""
    assert int(docker_current.version.split(".")[0]) >= 28
    for docker in (docker_oldest, docker_current):
        assert docker.ask("version", "--format={{.Client.Version}}") == docker.version
    assert docker_oldest.version != docker_current.version


def test_without_its_plugin_the_current_command_line_builds_classically_only():
    """What users have who installed Docker without buildx."""
    with wanted_engine(), docker_engine("current") as docker, pytest.raises(EngineError, match="buildx"):
        docker.ask("build", ".", environ=[("DOCKER_BUILDKIT", "1")])


def test_containers_on_the_bridge_reach_a_server_of_the_test(docker_bridged: Docker, python_base: str):
    """A step of a build and a container reach what listens on the bridge's address."""
    with serving_http(Hello, docker_bridged.address) as url:
        program = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=60).read().decode())"
        assert docker_bridged.ask("run", "--rm", python_base, "python3", "-c", program) == "hello"


def test_a_registry_in_a_container_is_reached_by_its_published_port(docker_bridged: Docker, python_base: str):
    """The image registry:2 behaves as the official one: port 5000, and what is pushed stays in its volume."""
    name = import_registry_image(docker_bridged)
    run = ["run", "--detach", "--publish=127.0.0.1:0:5000", "--volume=stored:/var/lib/registry", name]
    for _ in range(2):
        container = docker_bridged.ask(*run)
        host = docker_bridged.ask("port", container, "5000")
        if _ == 0:
            docker_bridged.ask("pull", python_base)
            docker_bridged.ask("tag", python_base, f"{host}/kept:python")
            docker_bridged.ask("push", f"{host}/kept:python")
        assert b"python" in _answer(f"http://{host}/v2/kept/tags/list")
        docker_bridged.ask("rm", "--force", container)


def _answer(url: str) -> bytes:
    """Return what a server in a new container answers; the engine takes connections before the server does, and cuts them off."""

    def look() -> bytes | None:
        with (
            contextlib.suppress(ConnectionError, urllib.error.URLError),
            urllib.request.urlopen(url, timeout=60) as answer,
        ):
            return answer.read()
        return None

    return eventually(look, within_s=120, said=lambda: f"nobody answers at {url}")


@pytest.mark.parametrize("bridge", [False, True], ids=["host-network", "bridge"])
def test_nothing_is_left_behind(bridge: bool):  # noqa: FBT001 - a parameter of the test
    """A container that runs for ever, a network and a volume are gone with the engine, and so are its rules and mounts."""
    with wanted_engine(), docker_engine("current", bridge=bridge) as docker:
        image = import_registry_image(docker)
        network = docker.ask("network", "create", "some")
        attach = ["--network=some"] if bridge else ["--network=host"]
        docker.ask("run", "--detach", "--restart=always", *attach, "--volume=/data", image, "sleep", "1000")
        assert traces(docker)
    eventually_gone(lambda: traces(docker))
    assert not Path("/sys/class/net", f"br-{network[:12]}").exists()
    assert not Path(docker.host.removeprefix("unix://")).parent.exists()
