"""Flows that run with Kubernetes: pods of images that nodes pull by digest."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace

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


@pytest.fixture
def gpu(cluster):
    """Have the node say that it has a GPU, which the kubelet believes: https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/."""
    node = cluster.kubectl("get", "nodes", "--output=name")
    for count in ("1", None):
        status = {"capacity": {"nvidia.com/gpu": count}, "allocatable": {"nvidia.com/gpu": count}}
        cluster.kubectl(
            "patch", node, "--subresource=status", "--type=merge", "--patch", json.dumps({"status": status})
        )
        if count:
            yield


@pytest.mark.usefixtures("gpu")
def test_steps_choose_their_base_and_nodes_log_in(place, cluster, judge, push_base):
    """A static `@kubernetes(image=…)` is a base, a GPU step has its own; pull secrets open a registry that is closed to others."""
    other, with_cuda = push_base("other", layers=2), push_base("gpu", layers=3)
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"robot": "hush"})) as closed:
        cluster.mirror(closed.host, f"http://{closed.host}")
        login = ("--docker-username=robot", "--docker-password=hush", f"--docker-server={closed.host}")
        place.namespace.kubectl("create", "secret", "docker-registry", "regcred", *login)
        place.folder.joinpath("docker").mkdir()
        secret = place.namespace.kubectl("get", "secret", "regcred", "--output=jsonpath={.data.\\.dockerconfigjson}")
        place.folder.joinpath("docker", "config.json").write_bytes(b64decode(secret))
        private = place.having(
            DOCKER_CONFIG=str(place.folder / "docker"),
            METAFLOW_PREBUILT_GPU_BASE_IMAGE=with_cuda,
            METAFLOW_PREBUILT_IMAGE_PULL_SECRETS="regcred",
            METAFLOW_PREBUILT_REGISTRY=f"{closed.host}/private",
            TEST_GPUS="1",
            TEST_OTHER_BASE=other,
        )
        outcome = private.run("pair", "run", "--word", "ab")
        assert outcome.code == 0, outcome.text
        (start,), (end,) = outcome.of("start"), outcome.of("end")
        judge_of_closed = replace(judge, settings=private.settings, images={})
        judge_of_closed.check(start, base=other)
        judge_of_closed.check(end, base=with_cuda)
    assert (start.seen["word"], end.seen["word"]) == ("ab", "abab")
    assert end.spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for pod in outcome.pods:
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
