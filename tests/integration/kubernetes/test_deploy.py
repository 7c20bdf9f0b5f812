"""Flows that are deployed: to Argo Workflows, whose containers are run in order, and to a real Airflow."""

from __future__ import annotations

import json

import pytest

from prebuilt.testing.engines.airflow import airflow
from prebuilt.testing.engines.kubernetes.argo import Workflow, define_argo
from prebuilt.testing.engines.wanted import wanted_engine

pytestmark = [pytest.mark.kubernetes, pytest.mark.metaflow, pytest.mark.slow]

ARGO = ("argo-workflows", "create", "--only-json")


def manifest(outcome):
    """Return the workflow template that a command printed below its progress."""
    assert outcome.code == 0, outcome.text
    return json.loads(outcome.text[outcome.text.index("\n{\n") :])


def kept(place, kind):
    """Return the only object of a kind that the cluster has in the place's namespace."""
    (found,) = json.loads(place.namespace.kubectl("get", kind, "--output=json"))["items"]
    return found


def containers(template):
    """Return the templates of a workflow that have a container, by name."""
    return {each["name"]: each for each in template["spec"]["templates"] if "container" in each}


@pytest.fixture
def fleet_place(place, push_base):
    """Return a place whose operator has nodes of every kind: base images for both architectures and for GPUs, pull secrets.

    Whoever deploys from there does not reach the cluster.
    """
    return place.having(
        KUBECONFIG=str(place.folder / "none"),
        METAFLOW_KUBERNETES_CONTAINER_IMAGE=push_base("both"),
        METAFLOW_PREBUILT_GPU_BASE_IMAGE=push_base("gpu", layers=3),
        METAFLOW_PREBUILT_IMAGE_PULL_SECRETS="one,two",
    )


@pytest.fixture
def make_dag(place, cluster_base):
    """Return what deploys a flow to an Airflow whose workers have the documented Role."""
    kubeconfig = place.as_user("airflow", "metaflow-airflow").variables["KUBECONFIG"]

    def make_dag(deployer, flow):
        known = deployer.having(METAFLOW_AIRFLOW_KUBERNETES_KUBECONFIG_FILE=kubeconfig)
        outcome = known.run(flow, "airflow", "create", "dag.py")
        assert outcome.code == 0, outcome.text
        with wanted_engine():
            return airflow(place.folder / "airflow", dag=place.folder / "dag.py", sidecar=cluster_base)

    return make_dag


def test_each_kind_of_node_gets_its_image(fleet_place, make_dag, judge, push_base):
    """A node selector for arm64 gives an arm64 image, a GPU step stands on the GPU base, all pods get the pull secrets.

    The pods that Airflow makes have the same images, which were found, node selectors and GPUs.
    """
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
    pods = {name: pod["spec"] for name, pod in make_dag(fleet_place, "fleet").pods().items()}
    for name in ("start", "arm", "train", "end"):
        assert pods[name]["containers"][0]["image"] == image_of[name]
    assert pods["arm"]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert pods["train"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}


@pytest.fixture(scope="module")
def argo(cluster):
    """Have the cluster know Argo's resources."""
    define_argo(cluster)


@pytest.mark.usefixtures("argo")
def test_the_containers_of_a_workflow_run(place, judge, push_base, cluster_base):
    """What `create` and `trigger` leave in the cluster runs, each template in its image; so does the exit hook.

    The parameter arrives, artifacts pass, nothing is installed. Who deploys, also again and with a schedule, has the documented Role.
    """
    other = push_base("other", layers=2)
    deployer = place.having(TEST_OTHER_BASE=other).as_user("deployer", "metaflow-argo")
    for command in (["create"], ["create"], ["trigger", "--word", "two words"]):
        outcome = deployer.run("pair", "argo-workflows", *command)
        assert outcome.code == 0, outcome.text
    assert "image" not in outcome.text  # to trigger bakes nothing
    template, triggered = kept(place, "workflowtemplates"), kept(place, "workflows")
    for started_by in (triggered["spec"], kept(place, "cronworkflows")["spec"]["workflowSpec"]):
        assert started_by["workflowTemplateRef"] == {"name": template["metadata"]["name"]}
    given = {each["name"]: each["value"] for each in triggered["spec"]["arguments"]["parameters"]}
    workflow = Workflow.submit(template, place.namespace, place.folder / "out", **given)
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


@pytest.mark.usefixtures("argo")
def test_an_event_starts_a_flow(place):
    """Its sensor is made, is another one after the next deployment, and is gone when the flow waits for nothing any more.

    Who deploys has the documented Role.
    """
    events = {"METAFLOW_ARGO_EVENTS_EVENT": "event", "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": "source"}
    deployer = place.having(**events, METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT="events").as_user(
        "deployer", "metaflow-argo"
    )
    for event in "data_arrived", "model_trained":
        outcome = deployer.having(TEST_EVENT=event).run("listener", "argo-workflows", "create")
        assert outcome.code == 0, outcome.text
        sensor = kept(place, "sensors")["spec"]
        assert event in json.dumps(sensor["dependencies"])
        assert kept(place, "workflowtemplates")["metadata"]["name"] in json.dumps(sensor["triggers"])
    outcome = deployer.run("listener", "argo-workflows", "create")
    assert outcome.code == 0, outcome.text
    assert json.loads(place.namespace.kubectl("get", "sensors", "--output=json"))["items"] == []


def test_airflow_runs_the_same_images(place, make_dag, judge, push_base, cluster_base):
    """Airflow runs each task in a pod of its image: the parameter arrives, artifacts pass, nothing is installed."""
    other = push_base("other", layers=2)
    dag = make_dag(place.having(TEST_OTHER_BASE=other), "pair")
    ended = dag.run(word="two words")
    assert ended.state == "success", ended.log
    start, end = judge.seen_in(ended.log)
    judge.check_task(start["image"], start, base=other)
    judge.check_task(end["image"], end, base=cluster_base)
    assert (start["word"], end["word"]) == ("two words", "two wordstwo words")
    # Airflow deletes its pods. Which images the node started them with, events say.
    events = json.loads(place.namespace.kubectl("get", "events", "--field-selector=reason=Pulled", "--output=json"))
    messages = " ".join(event["message"] for event in events["items"])
    assert all(f'"{task["image"]}"' in messages for task in (start, end))
