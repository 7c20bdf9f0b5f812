"""Flows inside their images: ``run --with container``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.container, pytest.mark.metaflow, pytest.mark.slow, pytest.mark.usefixtures("engine")]

IN_CONTAINER = ("run", "--with", "container")
PYTHON = "/opt/prebuilt/env/bin/python"


def test_every_step_runs_in_its_image(place, client):
    """Steps, a foreach and its join run in the baked image; artifacts, parameters, variables and logs come and go."""
    outcome = place.run("everyday", *IN_CONTAINER, "--word", "two words")
    assert outcome.code == 0, outcome.text
    assert re.search(r"\[\d+/start/\d+ \(pid \d+\)\] word: two words", outcome.text)
    run = client("EverydayFlow")
    assert run.successful
    assert run["end"].task["results"].data == [1, 4, 9]
    assert run["start"].task["colour"].data == "dark green"
    places = {task["place"].data for step in run for task in step}
    assert len(places) == 1
    executable, version, image = places.pop()
    assert (executable, version) == (PYTHON, "1.16.0")
    assert re.fullmatch(r"oci:.*@sha256:[0-9a-f]{64}", image)
    assert run["end"].task.metadata_dict["prebuilt-image"] == image


def test_logs_are_kept_once(place, client):
    """What a task writes is in its logs, stdout and stderr apart, no line twice."""
    assert place.run("everyday", *IN_CONTAINER).code == 0
    task = client("EverydayFlow")["start"].task
    assert task.stdout.count("word: a b") == 1
    assert task.stderr.count("a line of stderr") == 1


def test_a_second_run_builds_nothing(place):
    """Lock and image are there: the second deployment says so and makes no new file in the layout."""
    assert place.run("everyday", *IN_CONTAINER).code == 0
    blobs = Path(place.variables["METAFLOW_PREBUILT_CACHE_DIR"]) / "layout" / "blobs" / "sha256"
    before = sorted(blobs.iterdir())
    outcome = place.run("everyday", *IN_CONTAINER)
    assert outcome.code == 0, outcome.text
    assert "image is there" in outcome.text
    assert sorted(blobs.iterdir()) == before


def test_trouble_is_handled_as_on_a_cluster(place, client):
    """@retry runs the step again in its image, @catch catches, @timeout ends what takes too long."""
    outcome = place.run("troubled", *IN_CONTAINER)
    assert outcome.code == 0, outcome.text
    run = client("TroubledFlow")
    assert run["start"].task["attempt"].data == 1
    assert "this is caught" in str(run["caught"].task["failure"].data)
    assert "timed out" in str(run["slow"].task["too_slow"].data)
    assert "came through" in outcome.text


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
    assert client("TroubledFlow").successful


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
        rest, _ = process.communicate(timeout=60)
        assert time.monotonic() - before < 30
        assert "interrupted" in rest
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_a_step_without_requirements_runs_in_the_image_that_it_names(place, client):
    """@container(image=…) of a step that asks for nothing is looked up, pinned, and kept."""
    assert place.run("everyday", *IN_CONTAINER).code == 0
    _, _, image = client("EverydayFlow")["end"].task["place"].data
    outcome = place.run("bare", "run", "--with", f"container:image={image}")
    assert outcome.code == 0, outcome.text
    assert "bare: /opt/prebuilt/env/bin/python" in outcome.text
