"""Flows on AWS Batch: jobs are containers without a way out, in images that their node pulls from ECR."""

from __future__ import annotations

import json
import re

import pytest

from prebuilt.testing.engines.process import EngineError

pytestmark = [pytest.mark.aws, pytest.mark.metaflow, pytest.mark.slow]


def test_a_flow_runs_with_batch(rounds, check_rounds):
    """`run --with batch`: a parameter, a foreach, a retry and a join, in one image for each environment."""
    check_rounds(rounds)
    assert [task.job["status"] for task in rounds.of("square")].count("FAILED") == 1
    assert len(rounds.tasks) == 6


def test_nodes_run_what_was_pushed(rounds, amazon):
    """Docker says that each job's container was made of the digest that was pushed."""
    filters = ("--since=1h", "--until=0s", "--filter=type=container", "--filter=event=create")
    said = amazon.docker.ask("events", *filters, "--format={{json .Actor.Attributes}}")
    created = [json.loads(line) for line in said.splitlines()]
    image_of = {each["name"]: each["image"] for each in created}
    for task in rounds.tasks:
        assert image_of[f"{task.job['jobName']}-{task.job['jobId']}"] == task.image


def test_the_registry_opens_for_passwords_alone(rounds, amazon, new_place):
    """What the node pulled is not for a daemon that shows no password of ECR."""
    del rounds
    base = new_place("anybody").variables["METAFLOW_BATCH_CONTAINER_IMAGE"]
    with pytest.raises(EngineError, match="no basic auth credentials"):
        amazon.docker.ask("pull", base)


def test_steps_choose_their_base(parts, judge):
    """`@batch(image=…)` of one step, the GPU base of another and the cluster's image are what the images stand on."""
    for task in parts.tasks:
        judge.check(task, base={"start": "other", "train": "gpu", "end": "python"}[task.step])


def test_packages_of_a_gpu_step_are_locked_for_a_gpu(parts, judge):
    """The lock of the step that asks for a GPU says for which CUDA; the others' say nothing of it."""
    (start,), (train,) = parts.of("start"), parts.of("train")
    assert {"type": "GPU", "value": "1"} in train.job["container"]["resourceRequirements"]
    assert judge.lock(judge.image(train.image, "gpu")).target.cuda is not None
    assert judge.lock(judge.image(start.image, "other")).target.cuda is None
    assert train.seen["version"] == "3.10"


def test_a_failed_run_is_resumed(parts):
    """Metaflow's Runner runs the flow until a step fails, and resumes it: only that step runs again, in the same image."""
    assert "first: failed" in parts.text
    assert "second: successful True" in parts.text, parts.text
    assert [task.step for task in parts.tasks] == ["start", "train", "end", "end"]
    failed, resumed = parts.of("end")
    assert (failed.job["status"], resumed.job["status"]) == ("FAILED", "SUCCEEDED")
    assert failed.image == resumed.image


def test_two_users_bake_each_image_once(rounds, deployed_rounds):
    """Who deploys the same steps, with caches of their own or at the same time, gets the same digests."""
    there = {task.step: task.image for task in rounds.tasks}
    assert {task.step: task.image for task in deployed_rounds.execution.tasks} == there
    assert re.search("image (pushed|is there)", deployed_rounds.said)
