"""The builder ``kaniko`` in a pod, with nothing of AWS but the passwords that travel in its Job's Secret."""

from __future__ import annotations

import json

import pytest

from prebuilt.kaniko import KanikoBuildService
from prebuilt.testing.connect_proxy import ConnectProxy

pytestmark = [pytest.mark.aws, pytest.mark.kubernetes, pytest.mark.slow]


@pytest.fixture
def way_to_ecr(amazon, cluster, tmp_path):
    """Give what leads pods to the registry by its own host names, and the template of a pod that goes that way."""
    with ConnectProxy(amazon.proxy.server, hosts=amazon.proxy.hosts).serving(cluster.address) as proxy:
        env = [{"name": "HTTPS_PROXY", "value": proxy.url}]
        (tmp_path / "pod.json").write_text(json.dumps({"spec": {"containers": [{"name": "kaniko", "env": env}]}}))
        yield proxy


def test_a_pod_is_handed_passwords(way_to_ecr, build_in_ecr, kube_namespace, kaniko_image, monkeypatch, tmp_path):
    """Kaniko pulls a base of another account and region, and pushes, with a Secret that has one password for each and ends with the Job."""
    variables = {
        "KUBECONFIG": str(kube_namespace.kubeconfig),
        "METAFLOW_PREBUILT_KANIKO_NAMESPACE": kube_namespace.name,
        "METAFLOW_PREBUILT_KANIKO_IMAGE": kaniko_image,
        "METAFLOW_PREBUILT_KANIKO_POD_TEMPLATE": str(tmp_path / "pod.json"),
        "METAFLOW_PREBUILT_KANIKO_CPU": "100m",
        "METAFLOW_PREBUILT_KANIKO_MEMORY": "1Gi",
        "METAFLOW_PREBUILT_KANIKO_TIMEOUT": "600",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    build_in_ecr(KanikoBuildService())
    asked = {host.partition(".")[0] for host in way_to_ecr.asked}
    assert asked >= {"123456789012", "210987654321"}
    # The cluster collects its garbage.
    kube_namespace.kubectl("wait", "--for=delete", "secrets", "--all", "--timeout=300s")
