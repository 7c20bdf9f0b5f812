"""Flows whose images engines build from Dockerfiles: Docker into the registry ``local``, buildx on a remote BuildKit."""

from __future__ import annotations

import configparser
import contextlib
import socket
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.core.spec import PREFIX
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.conda_channel import build_channel
from prebuilt.testing.conda_python import python_package
from prebuilt.testing.conda_wheel import wheel_as_conda
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.installed_wheel import installed_wheel
from prebuilt.testing.interpreter import Interpreter
from tools.packages import read_toml

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

RUN = ("run", "--with", "container")
EXAMPLE = Path(__file__).parents[2] / "example_backend"
# What Metaflow itself needs where a step's Python comes from conda, and what the flow asks for.
FROM_CONDA = ("requests", "urllib3", "idna", "certifi", "charset-normalizer", "packaging")


@pytest.fixture(scope="module")
def channel(tmp_path_factory) -> str:
    """A conda channel with this machine's Python and packages."""
    folder = tmp_path_factory.mktemp("conda")
    interpreter = Interpreter.inspect()
    wheels = [installed_wheel(folder / "wheels", name) for name in FROM_CONDA]
    packages = [wheel_as_conda(wheel, python_xy=interpreter.xy) for wheel in wheels]
    return build_channel(folder / "channel", [python_package(interpreter), *packages]).url


@pytest.fixture(scope="module")
def at_home(docker_current, registry_host, channel, tmp_path_factory) -> dict[str, str]:
    """The settings of a user whose steps run by Docker, on a base image in a registry, from this channel."""
    base = push_base_image(open_repository(f"{registry_host}/flows-base"), platforms=[Platform.parse("linux/amd64")])
    return {
        **docker_current.environ,
        "CONDA_CHANNELS": channel,
        "METAFLOW_PREBUILT_BASE_IMAGE": base,
        "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "METAFLOW_PREBUILT_CONTAINER_ENGINE": "docker",
    }


@pytest.fixture(
    scope="module",
    params=[pytest.param("docker", marks=pytest.mark.docker), pytest.param("buildx", marks=pytest.mark.buildx)],
)
def built(request, at_home, docker_current, registry_host) -> Iterator[dict[str, str]]:
    """The settings of a user who builds with Docker, or with buildx on a remote BuildKit."""
    with contextlib.ExitStack() as stack:
        settings = at_home | {"METAFLOW_PREBUILT_BUILD_SERVICE": request.param}
        if request.param == "buildx":
            buildkit = request.getfixturevalue("buildkit")
            settings["METAFLOW_PREBUILT_BUILDX_BUILDER"] = stack.enter_context(remote_builder(docker_current, buildkit))
            settings["METAFLOW_PREBUILT_REGISTRY"] = f"{registry_host}/flows-by-buildx"
        else:
            settings["METAFLOW_PREBUILT_IMAGE_REGISTRY"] = "local"
            settings["METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH"] = registry_host
            settings["METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK"] = "host"
        yield settings


@pytest.fixture(scope="module")
def outside(at_home, registry_host, tmp_path_factory) -> dict[str, str]:
    """The settings of a user whose builder is of an outside distribution, as is the registry that each flow chooses."""
    folder = tmp_path_factory.mktemp("installed")
    project = read_toml(EXAMPLE / "pyproject.toml")["project"]
    metadata = folder / "site_images-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: site-images\nVersion: 1.0\n")
    groups = configparser.ConfigParser()
    groups.read_dict(project["entry-points"])
    with (metadata / "entry_points.txt").open("w") as file:
        groups.write(file)
    return at_home | {
        "METAFLOW_PREBUILT_BUILD_SERVICE": "site",
        "PYTHONPATH": f"{folder}:{EXAMPLE / 'src'}",
        "SITE_BUILD_OPTIONS": "--network=host",
        "SITE_REPOSITORY": f"{registry_host}/site/flows",
    }


class CountingPort:
    """A port of loopback that counts who comes, and turns everybody away."""

    def __init__(self) -> None:
        """Listen."""
        self.visitors = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{1}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._count)
        self._thread.start()

    def _count(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()
                self.visitors += 1

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def new_port() -> Iterator[type[CountingPort]]:
    """Return what makes counting ports; they are closed afterwards."""
    ports: list[CountingPort] = []

    def make() -> CountingPort:
        ports.append(CountingPort())
        return ports[-1]

    yield make
    for port in ports:
        port.close()


def test_each_step_runs_in_its_image(place, client, built, new_port):
    """Packages of every source are in the images; the second deploy asks neither the engine nor the index, and builds nothing."""
    first = place.run("sources", *RUN, **built)
    assert first.code == 0, first.text
    assert first.text.count("image pushed") == 3
    run = client("SourcesFlow", place)
    packaging = version("packaging")
    assert run["end"].task["places"].data == {
        "start": (PREFIX, "1.16.0"),
        "middle": (PREFIX, packaging),
        "end": (PREFIX, f"{packaging} 1.16.0"),
    }
    images = {step.id: step.task.metadata_dict["prebuilt-image"] for step in run}
    assert len(set(images.values())) == 3
    assert all("@sha256:" in image for image in images.values())

    engine, index = new_port(), new_port()
    away = {
        "DOCKER_HOST": f"tcp://{engine.address}",
        "METAFLOW_PREBUILT_CONTAINER_ENGINE": "rootless",  # Docker runs tasks; here none of it is to be asked
        "PIP_INDEX_URL": f"http://{index.address}/simple",
        "UV_DEFAULT_INDEX": f"http://{index.address}/simple",
    }
    second = place.run("sources", *RUN, **built | away)
    assert second.code == 0, second.text
    assert second.text.count("image is there") == 3
    assert {step.id: step.task.metadata_dict["prebuilt-image"] for step in client("SourcesFlow", place)} == images
    assert (engine.visitors, index.visitors) == (0, 0)


@pytest.mark.docker
def test_images_of_outside_backends_run_in_containers(place, client, outside):
    """A builder and a registry that say nothing of digests: tasks run in what was pushed, by Docker, and without it once it is there."""
    run = (*RUN, "--with", 'pypi:packages={"six":"1.16.0"}')
    first = place.run("bare", *run, **outside, METAFLOW_PREBUILT_IMAGE_REGISTRY="site")
    assert first.code == 0, first.text
    assert "image pushed" in first.text
    images = {step.task.metadata_dict["prebuilt-image"] for step in client("BareFlow", place)}
    (image,) = images
    assert image.startswith(f"{outside['SITE_REPOSITORY']}@sha256:")

    rootless = {"METAFLOW_PREBUILT_IMAGE_REGISTRY": "site-asked", "METAFLOW_PREBUILT_CONTAINER_ENGINE": "rootless"}
    second = place.run("bare", *run, **outside | rootless)
    assert second.code == 0, second.text
    assert "image is there" in second.text
    assert f"bare: {PREFIX}/bin/python" in second.text
    assert {step.task.metadata_dict["prebuilt-image"] for step in client("BareFlow", place)} == images
