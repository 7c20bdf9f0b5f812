"""What the environment tells Metaflow, and what the command line does with it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from metaflow import FlowSpec, pypi, step

from metaflow_extensions.prebuilt.plugins.conda.environment import PYTHON, PrebuiltCondaEnvironment
from prebuilt.core.spec import PREFIX


class Two(FlowSpec):
    @pypi(packages={"six": "1.16.0"})
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def test_the_interpreter_is_where_images_have_it():
    """The path that tasks know without core is the one that core builds."""
    assert f"{PREFIX}/bin/python" == PYTHON


def test_steps_that_run_elsewhere_use_the_images_interpreter(prepared):
    """Only a step with requirements and a compute decorator has an image of ours."""
    _, environment = prepared(Two, "container")
    assert environment.executable("start") == PYTHON
    assert environment.executable("end") == "python"
    assert environment.executable("_parameters") == "python"


def test_steps_that_run_here_use_the_usual_one(prepared):
    """Without a compute decorator the launch process chooses the interpreter, not the command line."""
    _, environment = prepared(Two)
    assert environment.executable("start") == "python"
    assert environment.interpreter("start") is None


def test_scheduled_start_steps_know_the_environment(prepared):
    """Commands that schedulers run without --environment get it as the default."""
    _, environment = prepared(Two, "container")
    assert environment.bootstrap_commands("start", "s3") == ["export METAFLOW_DEFAULT_ENVIRONMENT=prebuilt"]


def test_tasks_are_told_their_image(prepared, monkeypatch):
    """The launch process's answer reaches tasks through the processes that start them."""
    _, environment = prepared(Two, "container")
    monkeypatch.setenv("METAFLOW_PREBUILT_IMAGES", json.dumps({"start": "r@sha256:1"}))
    assert environment.bootstrap_commands("start", "s3")[-1].endswith(" METAFLOW_PREBUILT_IMAGE=r@sha256:1")
    assert "METAFLOW_PREBUILT_IMAGE=" not in environment.bootstrap_commands("end", "s3")[-1]


def test_an_image_may_be_in_any_folder(prepared, monkeypatch):
    """The folder of an image layout may have spaces and quotes in its name, as users' homes may."""
    image = f'oci:/home/Ann O\'Hara/"my" images@sha256:{"d" * 64}'
    _, environment = prepared(Two, "container")
    monkeypatch.setenv("METAFLOW_PREBUILT_IMAGES", json.dumps({"start": image}))
    lines = [*environment.bootstrap_commands("start", "local"), "printenv METAFLOW_PREBUILT_IMAGE"]
    command = shlex.split('bash -c "{}"'.format(" && ".join(lines)))
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{image}\n"


def test_code_comes_from_a_local_datastore_too(prepared, tmp_path):
    """The commands that a shell runs fetch the package from a path, with a space in it, and unpack it."""
    _, environment = prepared(Two, "container")
    commands = environment.get_package_commands(str(tmp_path / "a file"), "local")
    parsed = shlex.split('bash -c "{}"'.format(" && ".join(commands)))[2]
    assert f"cp '{tmp_path / 'a file'}' job.tar" in parsed
    assert "pip install" in parsed
    assert "METAFLOW_SKIP_INSTALL_DEPENDENCIES" in parsed


@pytest.mark.parametrize("datastore", ["s3", "azure", "gs"])
def test_other_datastores_are_metaflows_affair(prepared, datastore):
    """Nothing is changed about how clusters fetch code."""
    _, environment = prepared(Two, "container")
    url = {"s3": "s3://bucket/key", "azure": "container/key", "gs": "gs://bucket/key"}[datastore]
    stock = super(PrebuiltCondaEnvironment, environment).get_package_commands(url, datastore)
    assert environment.get_package_commands(url, datastore) == stock


def test_clients_are_told_the_image():
    """A task's image is in its metadata."""
    assert PrebuiltCondaEnvironment.get_client_info("F", {"prebuilt-image": "r@sha256:1"}) == "Image r@sha256:1"
    assert PrebuiltCondaEnvironment.get_client_info("F", {}) == "Local environment"


@pytest.mark.parametrize("command", [["show"], ["check"], ["package", "list"], ["package", "info"]])
def test_commands_that_only_look_build_nothing(run_flow, command, tmp_path):
    """No package is looked for, no cache is made."""
    outcome = run_flow("plain", "--environment=prebuilt", "--with=container", *command)
    assert outcome.code == 0, outcome.text
    assert not (tmp_path / "cache").exists()


def test_it_can_be_the_default(run_flow):
    """METAFLOW_DEFAULT_ENVIRONMENT names it once and for all."""
    outcome = run_flow("plain", "show", METAFLOW_DEFAULT_ENVIRONMENT="prebuilt")
    assert outcome.code == 0, outcome.text


def test_a_failure_is_one_clean_message(run_flow):
    """A malformed setting ends the command with its name and without a traceback."""
    outcome = run_flow("plain", "--environment=prebuilt", "run", METAFLOW_PREBUILT_REFRESH="perhaps")
    assert outcome.code == 1
    assert "Prebuilt environment" in outcome.text
    assert "METAFLOW_PREBUILT_REFRESH" in outcome.text
    assert "Traceback" not in outcome.text


def test_containers_need_the_environment(run_flow):
    """@container says what is missing."""
    outcome = run_flow("bare", "run", "--with", "container")
    assert outcome.code == 1
    assert "--environment=prebuilt" in outcome.text
    assert "Traceback" not in outcome.text


BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name == "prebuilt" or name.startswith("prebuilt."):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def blocked(tmp_path):
    """Return variables with which Python finds no `prebuilt`, as in tasks."""
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK)
    return {"PYTHONPATH": str(tmp_path / "block")}


def test_tasks_need_metaflow_alone(run_flow, blocked):
    """A task, started as a scheduler would, runs where `prebuilt` cannot be imported."""
    task = ("--environment=prebuilt", "--datastore=local", "--metadata=local", "--no-pylint", "--with=container")
    begun = run_flow("plain", *task, "init", "--run-id=mine-1", "--task-id=0", **blocked)
    assert begun.code == 0, begun.text
    done = run_flow(
        "plain",
        *task,
        *("step", "start", "--run-id=mine-1", "--task-id=1", "--input-paths=mine-1/_parameters/0"),
        **blocked,
        METAFLOW_PREBUILT_IMAGE="r@sha256:1",
    )
    assert done.code == 0, done.text
    assert "started" in done.text


def test_a_task_that_starts_a_flow_is_told_what_it_lacks(run_flow, blocked):
    """Its code package has the extension, and its environment may not have the rest."""
    outcome = run_flow("plain", "--environment=prebuilt", "--no-pylint", "run", **blocked)
    assert outcome.code == 1
    assert "metaflow-prebuilt is not installed there; add it to the packages of the step" in outcome.text
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize(
    "module",
    [
        "metaflow_extensions.prebuilt.plugins.conda.build_service",
        "metaflow_extensions.prebuilt.plugins.conda.image_registry",
        "metaflow_extensions.prebuilt.plugins.conda.prebuilt_conda_environment",
    ],
)
def test_documented_paths_can_be_imported_first(module):
    """Nobody has to import metaflow before what is documented."""
    subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", f"import {module}"], check=True)


def test_documented_names_are_the_real_ones():
    """What is re-exported is the same class, not a copy."""
    from metaflow_extensions.prebuilt.plugins.conda import build_service, image_registry, prebuilt_conda_environment
    from prebuilt.core.build_service import DockerBuildService, DockerfileBuildOptions
    from prebuilt.core.image_registry import ImageRegistry

    assert build_service.DockerBuildService is DockerBuildService
    assert build_service.DockerfileBuildOptions is DockerfileBuildOptions
    assert image_registry.ImageRegistry is ImageRegistry
    assert prebuilt_conda_environment.PrebuiltCondaEnvironment is PrebuiltCondaEnvironment
