"""The builder ``kaniko`` pushes to Artifact Registry: a real registry that takes tokens of Google's, which the test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError
from prebuilt.core.spec import PREFIX
from prebuilt.gcr import GCRRegistry
from prebuilt.kaniko import KanikoBuildService
from prebuilt.oci.open import open_repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.conformance.materials import SITE_PACKAGES, Materials, RecordingProgress, push_runnable_base
from prebuilt.testing.conformance.stage import SuiteStage
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.google_api import PROJECT, GoogleApi
from prebuilt.testing.google_cloud import google_cloud
from prebuilt.testing.google_registry import google_registry
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.validate import inspect_image

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

UPLOAD = "artifactregistry.repositories.uploadArtifacts"
Build = Callable[[str], Descriptor | None]


@pytest.fixture
def google(cluster: KubernetesCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleApi]:
    """Give Google's APIs and a registry where pods reach them; this process has a service account's key."""
    with (
        google_cloud(tmp_path, address=cluster.address) as cloud,
        wanted_engine(),
        google_registry(tmp_path / "real", cloud.api, address=cluster.address) as host,
    ):
        variables = {
            **cloud.environ,
            "DOCKER_CONFIG": str(tmp_path / "none"),
            "METAFLOW_HOME": str(tmp_path / "none"),
            "METAFLOW_PREBUILT_GCR_HOST": host,
            "METAFLOW_PREBUILT_GCR_PROJECT": PROJECT,
            "METAFLOW_PREBUILT_INSECURE_REGISTRIES": cluster.address,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield cloud.api
        close_connections()


@pytest.fixture
def registry(google: GoogleApi) -> GCRRegistry:
    """Return the registry."""
    del google
    return GCRRegistry()


@pytest.fixture
def build(
    registry: GCRRegistry,
    kube_namespace: Namespace,
    kaniko_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Build]:
    """Return what builds an image of one wheel, on a base image that is as private as what is pushed."""
    variables = {
        "KUBECONFIG": str(kube_namespace.kubeconfig),
        "METAFLOW_PREBUILT_KANIKO_NAMESPACE": kube_namespace.name,
        "METAFLOW_PREBUILT_KANIKO_IMAGE": kaniko_image,
        "METAFLOW_PREBUILT_KANIKO_CPU": "100m",
        "METAFLOW_PREBUILT_KANIKO_MEMORY": "1Gi",
        "METAFLOW_PREBUILT_KANIKO_TIMEOUT": "600",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    host = registry.repository.partition("/")[0]
    bases = open_repository(f"{host}/{PROJECT}/bases", registry.credentials_source)
    with PackageIndex().serving() as index:
        materials = Materials(
            index=index,
            folder=tmp_path / "wheels",
            target=open_repository(registry.repository, registry.credentials_source),
            base=push_runnable_base(bases, tmp_path / "base"),
            stage=SuiteStage(),
        )

        def build(name: str) -> Descriptor | None:
            spec = materials.spec(materials.wheel(name))
            tag = registry.push_tag(spec.env_id)
            credentials = registry.credentials(tag)
            assert credentials is not None
            request = materials.request(spec, tag=tag.rpartition(":")[2], credentials=credentials)
            progress = RecordingProgress()
            try:
                return KanikoBuildService().build(request, progress)
            finally:
                assert not any(credentials.secret in text for text in progress.texts)

        yield build


def test_a_pod_is_handed_a_token(google: GoogleApi, registry: GCRRegistry, build: Build) -> None:
    """With it Kaniko pulls a private base image and pushes; where it opens too little, the permission is named."""
    built = build("one")
    assert built is not None
    served = inspect_image(open_repository(registry.repository, registry.credentials_source), built.digest)
    assert f"{PREFIX}/{SITE_PACKAGES}/one/__init__.py".lstrip("/") in served.tree
    assert google.count("POST /token") == 1
    google.denied.add(UPLOAD)
    with pytest.raises(BuildError, match=UPLOAD):
        build("two")
