"""Flows inside their images: ``run --with container``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from prebuilt.testing.waiting import eventually_gone

pytestmark = [pytest.mark.container, pytest.mark.metaflow, pytest.mark.slow, pytest.mark.usefixtures("engine")]

IN_CONTAINER = ("run", "--with", "container")
PYTHON = "/opt/prebuilt/env/bin/python"


@pytest.fixture(scope="module")
def ran(new_place, tmp_path_factory):
    """Return a place where the everyday flow came through in containers, and what was printed."""
    place = new_place(tmp_path_factory.mktemp("ran"))
    outcome = place.run("everyday", *IN_CONTAINER, "--word", "two words")
    assert outcome.code == 0, outcome.text
    return place, outcome.text


@pytest.mark.minimums
def test_every_step_runs_in_its_image(ran, client):
    """Steps, a foreach and its join run in the baked image; artifacts, parameters, variables and logs come and go."""
    place, text = ran
    assert re.search(r"\[\d+/start/\d+ \(pid \d+\)\] word: two words", text)
    run = client("EverydayFlow", place)
    assert run.successful
    assert run["end"].task["results"].data == [1, 4, 9]
    assert run["start"].task["colour"].data == "dark green"
    places = {task["place"].data for step in run for task in step}
    assert len(places) == 1
    executable, version, image = places.pop()
    assert (executable, version) == (PYTHON, "1.16.0")
    assert re.fullmatch(r"oci:.*@sha256:[0-9a-f]{64}", image)
    assert run["end"].task.metadata_dict["prebuilt-image"] == image


def test_logs_are_kept_once(ran, client):
    """What a task writes is in its logs, stdout and stderr apart, no line twice."""
    task = client("EverydayFlow", ran[0])["start"].task
    assert task.stdout.count("word: two words") == 1
    assert task.stderr.count("a line of stderr") == 1


def test_what_is_written_belongs_to_the_user(ran):
    """Files that tasks leave in the datastore have the owner of the process that launched them."""
    place, _ = ran
    assert {path.stat().st_uid for path in place.folder.rglob("*")} == {os.getuid()}


def test_a_second_run_builds_nothing(ran):
    """Lock and image are there: the second deployment says so and makes no new file in the layout."""
    place, _ = ran
    blobs = Path(place.variables["METAFLOW_PREBUILT_CACHE_DIR"]) / "layout" / "blobs" / "sha256"
    before = sorted(blobs.iterdir())
    outcome = place.run("bare", *IN_CONTAINER, "--with", 'pypi:packages={"six":"1.16.0"}')
    assert outcome.code == 0, outcome.text
    assert "image is there" in outcome.text
    assert "bare: /opt/prebuilt/env/bin/python" in outcome.text
    assert sorted(blobs.iterdir()) == before


def test_trouble_is_handled_as_on_a_cluster(place, client):
    """@retry runs the step again in its image, @catch catches, @timeout ends what takes too long."""
    outcome = place.run("troubled", *IN_CONTAINER)
    assert outcome.code == 0, outcome.text
    run = client("TroubledFlow", place)
    assert run["start"].task["attempt"].data == 1
    assert "this is caught" in str(run["caught"].task["failure"].data)
    assert "timed out" in str(run["slow"].task["too_slow"].data)
    assert "came through" in outcome.text


@pytest.mark.minimums
def test_a_failed_run_is_resumed(place, client):
    """Steps that came through are not run again; the one that died is, in its image."""
    trap = place.folder / ".metaflow" / "trap"  # below what the container sees of this machine
    trap.parent.mkdir()
    trap.touch()
    failed = place.run("troubled", *IN_CONTAINER)
    assert failed.code == 1
    assert "Step end (task-id 4) failed" in failed.text
    trap.unlink()
    resumed = place.run("troubled", "resume", "--with", "container")
    assert resumed.code == 0, resumed.text
    assert "the first attempt fails" not in resumed.text
    assert client("TroubledFlow", place).successful


def test_ctrl_c_ends_containers(place):
    """After Ctrl-C nothing is left running."""
    process = subprocess.Popen(
        place.command("patient", *IN_CONTAINER),
        cwd=place.folder,
        env=place.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        for line in process.stdout:
            if line.rstrip().endswith("waiting"):
                break
        before = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=200)
        assert time.monotonic() - before < 150  # of 300 s that the step would wait
        assert "interrupted" in rest
        # Who has ended is taken off the list in a moment.
        eventually_gone(lambda: _is_there(process.pid))


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_step_without_requirements_runs_in_the_image_that_it_names(ran, client):
    """@container(image=…) of a step that asks for nothing is looked up, pinned, and kept."""
    place, _ = ran
    _, _, image = client("EverydayFlow", place)["end"].task["place"].data
    outcome = place.run("bare", "run", "--with", f"container:image={image}")
    assert outcome.code == 0, outcome.text
    assert "bare: /opt/prebuilt/env/bin/python" in outcome.text


@pytest.mark.minimums
def test_a_step_of_a_run_in_containers_is_spun_here(ran):
    """`spin` needs no container: it takes what came before from the run, and the step's local environment."""
    place, _ = ran
    outcome = place.run("everyday", "spin", "end")
    assert outcome.code == 0, outcome.text
    assert re.search(rf"\[1, 4, 9\] by {place.variables['METAFLOW_PREBUILT_CACHE_DIR']}/\S+", outcome.text)


@pytest.mark.minimums
def test_the_runner_runs_containers(place):
    """Metaflow's Runner runs a flow with the environment and the container."""
    outcome = place.run_program("run_everyday", "container")
    assert outcome.text.splitlines()[-1].split() == ["successful", PYTHON, "1.16.0"]


def test_a_container_that_cannot_be_run_is_one_clean_message(ran):
    """An engine that does not work ends the run with its name and its reason."""
    place, _ = ran
    outcome = place.run("everyday", *IN_CONTAINER, METAFLOW_PREBUILT_CONTAINER_ENGINE="charcoal")
    assert outcome.code == 1
    assert "METAFLOW_PREBUILT_CONTAINER_ENGINE" in outcome.text
    assert "Traceback" not in outcome.text
