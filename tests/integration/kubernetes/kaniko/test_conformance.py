"""The builder ``kaniko`` does what every builder does, on a real cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from prebuilt.kaniko import KanikoBuildService
from prebuilt.testing.conformance.builder_contract import BuilderContract
from prebuilt.testing.conformance.builder_world import NewBuilder
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.engines.object_store import ObjectStore

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]


class TestKanikoBuildService(BuilderContract):
    """With logins of the request's, and large contexts in S3."""

    returns_descriptor = True
    takes_credentials = True
    repeats_linked_files = True

    @pytest.fixture
    def address(self, cluster: KubernetesCluster) -> str:
        """Return where pods reach the suite's registries."""
        return cluster.address

    @pytest.fixture
    def new_builder(
        self,
        cluster: KubernetesCluster,
        kube_namespace: Namespace,
        kaniko_image: str,
        store: ObjectStore,
        await_cleanup: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> NewBuilder:
        """Return what makes builders by the settings that a user has."""
        self._await_cleanup = await_cleanup
        template = tmp_path / "pod.yaml"
        reached = {**store.keys, "S3_ENDPOINT": store.url, "S3_FORCE_PATH_STYLE": "true"}
        env = [{"name": name, "value": value} for name, value in reached.items()]
        template.write_text(json.dumps({"spec": {"containers": [{"name": "kaniko", "env": env}]}}))
        variables = {
            **store.keys,
            "AWS_ENDPOINT_URL_S3": store.url,
            "METAFLOW_PREBUILT_KANIKO_CONTEXT_BUCKET": "s3://flows/contexts",
            "METAFLOW_PREBUILT_KANIKO_POD_TEMPLATE": str(template),
            "KUBECONFIG": str(kube_namespace.kubeconfig),
            "METAFLOW_HOME": str(tmp_path),
            "METAFLOW_PREBUILT_INSECURE_REGISTRIES": cluster.address,
            "METAFLOW_PREBUILT_KANIKO_NAMESPACE": kube_namespace.name,
            "METAFLOW_PREBUILT_KANIKO_IMAGE": kaniko_image,
            "METAFLOW_PREBUILT_KANIKO_CPU": "100m",
            "METAFLOW_PREBUILT_KANIKO_MEMORY": "1Gi",
            "METAFLOW_PREBUILT_KANIKO_TIMEOUT": "600",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return KanikoBuildService

    def leftovers(self) -> Sequence[str]:
        """Return what builds left in the bucket; in the cluster there must be nothing."""
        import boto3

        s3 = boto3.session.Session().client("s3")
        kept = s3.list_objects_v2(Bucket="flows", Prefix="contexts/").get("Contents", [])
        s3.close()
        self._await_cleanup()
        return [each["Key"] for each in kept]
