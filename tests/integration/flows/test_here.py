"""Steps without a compute decorator: they run on this machine, in their lock."""

from __future__ import annotations

import re
import sys

import pytest

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]


@pytest.mark.minimums
def test_steps_run_in_a_local_environment(place, client):
    """The interpreter is that of an environment in the cache, which holds what the step asked for."""
    outcome = place.run("everyday", "run")
    assert outcome.code == 0, outcome.text
    executable, version, image = client("EverydayFlow", place)["end"].task["place"].data
    assert executable.startswith(place.variables["METAFLOW_PREBUILT_CACHE_DIR"])
    assert (version, image) == ("1.16.0", None)


def test_a_step_without_requirements_uses_the_users_interpreter(place):
    """What asks for nothing runs as ever."""
    outcome = place.run("bare", "run")
    assert f"bare: {sys.executable}" in outcome.text


def test_a_step_is_spun_here(place):
    """`spin` runs one step again, in its local environment."""
    assert place.run("everyday", "run").code == 0
    outcome = place.run("everyday", "spin", "end")
    assert outcome.code == 0, outcome.text
    assert re.search(rf"\[1, 4, 9\] by {place.variables['METAFLOW_PREBUILT_CACHE_DIR']}/\S+", outcome.text)


def test_the_runner_needs_nothing_special(place):
    """Metaflow's Runner runs a flow with the environment."""
    outcome = place.run_program("run_everyday")
    status, executable, version = outcome.text.splitlines()[-1].split()
    assert (status, version) == ("successful", "1.16.0")
    assert executable.startswith(place.variables["METAFLOW_PREBUILT_CACHE_DIR"])


def test_it_is_the_default_where_so_configured(place, client):
    """METAFLOW_DEFAULT_ENVIRONMENT does what --environment does, without which @pypi is refused."""
    assert place.run_program("everyday", "run").code == 1
    outcome = place.run_program("everyday", "run", METAFLOW_DEFAULT_ENVIRONMENT="prebuilt")
    assert outcome.code == 0, outcome.text
    executable, _, _ = client("EverydayFlow", place)["end"].task["place"].data
    assert executable.startswith(place.variables["METAFLOW_PREBUILT_CACHE_DIR"])


def test_an_unknown_package_is_one_clean_message(place):
    """The message names the package; nothing is started, there is no traceback."""
    outcome = place.run("unknown", "spin", "start")
    assert outcome.code == 1
    assert "no-such-package-of-metaflow-prebuilt" in outcome.text
    assert "Traceback" not in outcome.text


def test_a_cluster_is_refused_a_folder_of_this_machine(place):
    """A run on Kubernetes with the registry `layout` ends before anything is built, naming the setting."""
    outcome = place.run(
        "unknown",
        "--datastore=s3",
        "run",
        METAFLOW_DATASTORE_SYSROOT_S3="s3://nowhere/metaflow",
        AWS_EC2_METADATA_DISABLED="true",
    )
    assert outcome.code == 1
    assert "METAFLOW_PREBUILT_IMAGE_REGISTRY" in outcome.text
    assert "step start" in outcome.text
    assert "Traceback" not in outcome.text
