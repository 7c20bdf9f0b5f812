"""Flows that are deployed: to Argo Workflows, whose containers are run in order, and to Airflow."""

from __future__ import annotations

import json
import runpy

import pytest

from prebuilt.testing.engines.kubernetes.argo import Workflow

pytestmark = [pytest.mark.kubernetes, pytest.mark.metaflow, pytest.mark.slow]

ARGO = ("argo-workflows", "create", "--only-json")


def manifest(outcome):
    """Return the workflow template that a command printed below its progress."""
    assert outcome.code == 0, outcome.text
    return json.loads(outcome.text[outcome.text.index("\n{\n") :])


def containers(template):
    """Return the templates of a workflow that have a container, by name."""
    return {each["name"]: each for each in template["spec"]["templates"] if "container" in each}


@pytest.fixture
def fleet_place(place, push_base):
    """Return a place whose operator has nodes of every kind: base images for both architectures and for GPUs, pull secrets."""
    return place.having(
        METAFLOW_KUBERNETES_CONTAINER_IMAGE=push_base("both"),
        METAFLOW_PREBUILT_GPU_BASE_IMAGE=push_base("gpu", layers=3),
        METAFLOW_PREBUILT_IMAGE_PULL_SECRETS="one,two",
    )


def test_each_kind_of_node_gets_its_image(fleet_place, judge, push_base):
    """A node selector for arm64 gives an arm64 image, a GPU step stands on the GPU base, all pods get the pull secrets."""
    found = containers(manifest(fleet_place.run("fleet", *ARGO)))
    image_of = {name: template["container"]["image"] for name, template in found.items()}
    assert image_of["start"] == image_of["end"] == image_of["error-msg-capture-hook"]
    assert len({image_of[name] for name in ("start", "arm", "train")}) == 3
    images = {
        "start": judge.image(image_of["start"], base=push_base("both")),
        "arm": judge.image(image_of["arm"], base=push_base("both"), platform="linux/arm64"),
        "train": judge.image(image_of["train"], base=push_base("gpu", layers=3)),
    }
    assert {name: str(judge.lock(image).target.platform) for name, image in images.items()} == {
        "start": "linux/amd64",
        "arm": "linux/arm64",
        "train": "linux/amd64",
    }
    assert images["arm"].config.architecture == "arm64"
    assert judge.lock(images["train"]).target.cuda is not None
    assert found["arm"]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert found["train"]["container"]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    for name in images:
        assert json.loads(found[name]["podSpecPatch"])["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


def test_the_containers_of_a_workflow_run(place, judge, push_base, cluster_base):
    """Each template runs in its image: the parameter arrives, artifacts pass, nothing is installed; so does the exit hook."""
    other = push_base("other", layers=2)
    template = manifest(place.having(TEST_OTHER_BASE=other).run("pair", *ARGO))
    workflow = Workflow.submit(template, place.namespace, place.folder / "out", word='"two words"')
    workflow.run()
    start, end = place.pods()
    judge.check(start, base=other)
    judge.check(end, base=cluster_base)
    assert (start.seen["word"], end.seen["word"]) == ("two words", "two wordstwo words")
    failure = {"displayName": "start", "templateName": "start", "message": "Error (exit code 1)", "phase": "Failed"}
    failures = json.dumps(json.dumps([failure]))  # as Argo gives them
    hook = workflow.templates["error-msg-capture-hook"]
    said = workflow.run_template(hook, {"workflow.failures": failures})
    assert "Error (exit code 1)" in said


def test_airflow_is_given_the_same_images(fleet_place, judge, push_base):
    """The DAG file has the image of each step by digest, as deployed to Argo, and the node selector."""
    deployed = containers(manifest(fleet_place.run("fleet", *ARGO)))
    outcome = fleet_place.run("fleet", "airflow", "create", "dag.py")
    assert outcome.code == 0, outcome.text
    assert "image is there" in outcome.text
    text = (fleet_place.folder / "dag.py").read_text()
    states = runpy.run_path(str(_config_alone(fleet_place.folder, text)))["CONFIG"]["states"]
    asked = {name: state["operator_args"] for name, state in states.items()}
    assert {name: each["image"] for name, each in asked.items()} == {
        name: deployed[name]["container"]["image"] for name in ("start", "arm", "train", "end")
    }
    assert asked["arm"]["node_selector"] == {"kubernetes.io/arch": "arm64"}


def _config_alone(folder, text):
    """Return a file with the first statement of a DAG file, which is data; the rest needs Airflow."""
    file = folder / "config.py"
    file.write_text(next(line for line in text.splitlines() if line.startswith("CONFIG = ")))
    return file
