"""Flows that run with Kubernetes: pods of images that nodes pull by digest."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest

from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

pytestmark = [pytest.mark.kubernetes, pytest.mark.metaflow, pytest.mark.slow]


def test_a_flow_runs_with_kubernetes(place, judge, cluster_base):
    """`run --with kubernetes`: a parameter, a foreach, a retry and a join, in one image for each environment."""
    # Kubernetes pulls without secrets that are not there, where the registry lets everybody.
    secretive = place.having(METAFLOW_PREBUILT_IMAGE_PULL_SECRETS="one,two")
    outcome = secretive.run("rounds", "run", "--with", "kubernetes", "--word", "two words")
    assert outcome.code == 0, outcome.text
    for pod in outcome.pods:
        judge.check(pod, base=cluster_base)
        assert pod.spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    (start,), (join,), (end,) = outcome.of("start"), outcome.of("join"), outcome.of("end")
    assert (start.seen["word"], start.seen["version"]) == ("two words", "1.16.0")
    assert join.seen["results"] == end.seen["results"] == [1, 4]
    squares = outcome.of("square")
    assert sorted(square.seen["attempt"] for square in squares) == [0, 0, 1]
    assert {square.seen["version"] for square in squares} == {"3.0.2"}
    assert start.image == join.image == end.image != squares[0].image
    assert len({square.image for square in squares}) == 1


def test_steps_choose_their_base_and_nodes_log_in(place, cluster, push_base):
    """A static `@kubernetes(image=…)` is a base; pull secrets by name open a registry that is closed to everybody else."""
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"robot": "hush"})) as closed:
        cluster.mirror(closed.host, f"http://{closed.host}")
        login = ("--docker-username=robot", "--docker-password=hush", f"--docker-server={closed.host}")
        place.namespace.kubectl("create", "secret", "docker-registry", "regcred", *login)
        place.folder.joinpath("docker").mkdir()
        secret = place.namespace.kubectl("get", "secret", "regcred", "--output=jsonpath={.data.\\.dockerconfigjson}")
        place.folder.joinpath("docker", "config.json").write_bytes(b64decode(secret))
        private = place.having(
            DOCKER_CONFIG=str(place.folder / "docker"),
            METAFLOW_PREBUILT_IMAGE_PULL_SECRETS="regcred",
            METAFLOW_PREBUILT_REGISTRY=f"{closed.host}/private",
            TEST_OTHER_BASE=push_base("other", layers=2),
        )
        outcome = private.run("pair", "run", "--word", "ab")
    assert outcome.code == 0, outcome.text
    (start,), (end,) = outcome.of("start"), outcome.of("end")
    assert (start.seen["word"], end.seen["word"]) == ("ab", "abab")
    assert start.image != end.image
    for pod in outcome.pods:
        assert pod.image.startswith(f"{closed.host}/private@sha256:")
        assert pod.spec["imagePullSecrets"] == [{"name": "regcred"}]


def test_an_image_that_nodes_cannot_pull_ends_the_run(place, cluster):
    """Where tasks pull from a registry that has not what was pushed, the reason comes before anything is launched."""
    with distribution_registry(place.folder / "other", address=cluster.address) as other:
        addresses = {
            "METAFLOW_PREBUILT_IMAGE_REGISTRY": "local",
            "METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH": cluster.registry,
            "METAFLOW_PREBUILT_LOCAL_REGISTRY_PULL": other,
        }
        outcome = place.having(**addresses).run("rounds", "run", "--with", "kubernetes")
    assert outcome.code == 1
    assert "find the image where tasks pull it" in outcome.text
    assert "does not have it" in outcome.text
    assert json.loads(place.namespace.kubectl("get", "jobs", "--output=json"))["items"] == []
