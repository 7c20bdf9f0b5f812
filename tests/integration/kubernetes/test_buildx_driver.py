"""The builder ``buildx`` on a BuildKit that buildx runs in a pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX
from prebuilt.testing.conformance.materials import (
    PLATFORM,
    SITE_PACKAGES,
    Materials,
    RecordingProgress,
    push_runnable_base,
)
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.engines.buildx import kubernetes_builder
from prebuilt.testing.engines.docker import daemonless_docker
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.engines.machine_image import push_buildkit_image
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.validate import inspect_image

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]


def test_image_is_built_in_a_pod_without_any_docker(
    cluster: KubernetesCluster, kube_namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A BuildKit in the cluster builds and pushes what was asked for where no Docker Engine is; its Deployment goes with it."""
    with wanted_engine():
        docker, image = daemonless_docker(tmp_path), push_buildkit_image(cluster.repository("buildkit"))
    for name, value in {**docker.environ, **cluster.environ}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("KUBECONFIG")  # the builder knows its own
    base = push_runnable_base(cluster.repository("buildx-base"), tmp_path / "base")
    target = cluster.repository("buildx-driver")
    with PackageIndex().serving() as index:
        materials = Materials(index=index, folder=tmp_path / "wheels", target=target, base=base, stage=SuiteStage())
        request = materials.request(materials.spec(materials.wheel("one")))
        with kubernetes_builder(docker, kube_namespace, image=image) as builder:
            assert kube_namespace.kubectl("get", "deployments", "--output=name").endswith(f"/{builder}0")
            service = BuildxBuildService(Settings({"METAFLOW_PREBUILT_BUILDX_BUILDER": builder}, {}))
            progress = RecordingProgress()
            built = service.build(request, progress)
    assert kube_namespace.kubectl("get", "deployments", "--output=name") == ""
    assert f"building with buildx's builder {builder} (driver kubernetes)" in progress.texts
    assert built is not None
    assert built == target.resolve("image")
    served = inspect_image(target, built.digest, platform=PLATFORM)
    assert f"{PREFIX}/{SITE_PACKAGES}/one/__init__.py".lstrip("/") in served.tree
