"""One eventful flow on each engine that has containers of its own: what the rootless engine is shown to do at length in
``test_containers.py``."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from prebuilt.core.errors import ContainerError
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import open_engine
from prebuilt.testing.engines.podman import podman_storage
from prebuilt.testing.waiting import eventually_gone

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]


@pytest.fixture
def docker(docker_current):
    """Return the variables that lead to a Docker Engine."""
    return docker_current.environ


@pytest.fixture
def podman():
    """Return the variables of Podman with a storage of its own; skip where it does not work."""
    try:
        open_engine("podman", Settings.load()).check()
    except ContainerError as error:
        pytest.skip(str(error))
    with podman_storage() as variables:
        yield variables


@pytest.fixture(
    params=[pytest.param("docker", marks=pytest.mark.docker), pytest.param("podman", marks=pytest.mark.container)]
)
def settings(request):
    """Return the settings of a user of an engine."""
    return {"METAFLOW_PREBUILT_CONTAINER_ENGINE": request.param, **request.getfixturevalue(request.param)}


def test_an_eventful_flow_comes_to_its_end(place, client, settings):
    """@retry, @catch, @timeout, @resources, foreach, Ctrl-C and resume are as they are everywhere, and no container is left."""
    wait = place.folder / ".metaflow" / "wait"  # below what the container sees of this machine
    wait.parent.mkdir()
    wait.touch()
    process = subprocess.Popen(
        place.command("eventful", "run", "--with", "container"),
        cwd=place.folder,
        env=place.variables | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.rstrip().endswith("waiting"):
                break
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=250)
    text = "".join(said) + rest
    assert "interrupted" in rest, text
    assert "processors for a step that asks for 500" in text
    eventually_gone(lambda: _containers(settings), every_s=0.2)

    wait.unlink()
    resumed = place.run("eventful", "resume", "--with", "container", **settings)
    assert resumed.code == 0, resumed.text
    assert "came through" in resumed.text
    assert "the first attempt fails" not in resumed.text
    run = client("EventfulFlow", place)
    assert run.successful
    assert [("timed out" in outcome) for outcome in run["end"].task["outcomes"].data] == [False, True]
    eventually_gone(lambda: _containers(settings), every_s=0.2)


def _containers(settings):
    program = settings["METAFLOW_PREBUILT_CONTAINER_ENGINE"]
    return subprocess.run(
        [program, "ps", "--all", "--quiet"], env=os.environ | settings, check=True, capture_output=True, text=True
    ).stdout.split()
