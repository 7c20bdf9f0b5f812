"""Flows on AWS Step Functions, executed to their end."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.aws, pytest.mark.metaflow, pytest.mark.slow]


def test_a_flow_is_deployed_by_the_deployer(deployed_rounds, check_rounds):
    """Metaflow's Deployer creates a state machine and triggers it: parameter, foreach, retry and join, as on Batch."""
    check_rounds(deployed_rounds.execution)
    squares = deployed_rounds.execution.of("square")
    assert len(squares) == 2  # here attempts are those of one job
    assert all(task.job["status"] == "SUCCEEDED" for task in squares)
    assert "triggered: Rounds RoundsFlow/sfn-" in deployed_rounds.said


def test_a_flow_is_created_and_triggered(deployed_pair, judge):
    """`step-functions create` and `trigger`, with commands kept in S3; a step that asks for nothing keeps the cluster's image."""
    assert deployed_pair.execution.code == 0, deployed_pair.execution.text
    (start,), (end,) = deployed_pair.execution.of("start"), deployed_pair.execution.of("end")
    judge.check(start)
    assert start.seen["word"] == end.seen["word"] == "two words"
    assert end.image == deployed_pair.place.variables["METAFLOW_BATCH_CONTAINER_IMAGE"]
    assert end.seen["image"] is None  # it was not baked for this step
    assert start.image != end.image
    assert "step_command.sh" in start.command


def test_a_start_step_that_is_tried_again_finds_its_parameters(deployed_rounds):
    """The start step's shell can look for the parameters' task, with a command that Metaflow gives no --environment."""
    (start,) = deployed_rounds.execution.of("start")
    name, value = re.search(r"export (METAFLOW_DEFAULT_ENVIRONMENT)=(\w+)", start.command).groups()
    look = re.search(r"if ! \S+ (?P<flow>\S+\.py) (?P<options>dump .*?) >/dev/null", start.command)
    of_job = {each["name"]: each["value"] for each in start.job["container"]["environment"]}
    arguments = look["options"].replace("${METAFLOW_RUN_ID}", of_job["METAFLOW_RUN_ID"])
    arguments = arguments.replace("${AWS_BATCH_JOB_ID}", start.job["jobId"])
    place = deployed_rounds.place
    with_default = replace(place, variables={**place.variables, name: value})
    assert with_default.call(look["flow"], *shlex.split(arguments)).code == 0
    assert place.call(look["flow"], *shlex.split(arguments)).code != 0  # which is why the default is there


def test_deploying_again_changes_what_runs_next(deployed_pair):
    """After a change of packages, `create` has the same state machine name another image for that step, and for no other."""
    place = deployed_pair.place
    before = place.images("PairFlow")
    assert before == {task.step: task.image for task in deployed_pair.execution.tasks}
    changed = replace(place, variables={**place.variables, "TEST_IDNA": "3.9"})
    outcome = changed.run("pair", "step-functions", "create")
    assert outcome.code == 0, outcome.text
    after = place.images("PairFlow")
    assert after["start"] not in {before["start"], before["end"]}
    assert after["end"] == before["end"]
