"""Registries and buckets that not everybody reaches: with certificates and logins of their own, behind a proxy, or by identity."""

from __future__ import annotations

import base64
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from prebuilt.core.context_archive import context_archive, published_context
from prebuilt.core.credentials import Credentials
from prebuilt.core.settings import Settings
from prebuilt.oci.open import open_repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.certificate import make_certificate
from prebuilt.testing.conformance.materials import push_small_base
from prebuilt.testing.connect_proxy import ConnectProxy
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster
from prebuilt.testing.engines.object_store import ObjectStore
from prebuilt.testing.google_api import PROJECT
from prebuilt.testing.google_cloud import HOST, google_cloud
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.validate import inspect_image

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

ROLE = Path(__file__).parents[4] / "docs" / "how-to" / "kaniko-role.yaml"
RULES = yaml.safe_load(ROLE.read_text())["rules"]
ACCOUNT = "123456789012"
COMPANY, ECR = "registry.company.example", f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A company's certificate authority."""
    return tmp_path / "authority.pem"


@pytest.fixture
def tls(cluster: KubernetesCluster, authority: Path) -> Any:
    """What its servers show."""
    return make_certificate(authority, cluster.address, COMPANY, ECR)


@pytest.fixture
def template(tmp_path: Path) -> Any:
    """Return what writes a pod template with variables for Kaniko, and with other fields."""

    def write(variables: dict[str, str], **fields: Any) -> str:
        env = [{"name": name, "value": value} for name, value in variables.items()]
        container = {"name": "kaniko", "env": env, **fields.pop("container", {})}
        path = tmp_path / "pod.yaml"
        path.write_text(yaml.safe_dump({"spec": {"containers": [container], **fields}}))
        return str(path)

    return write


def test_base_and_image_are_in_private_registries(
    user: Any, cluster: KubernetesCluster, authority: Path, tls: Any, tmp_path: Path
):
    """Each has a login of its own, both have a certificate of the company's; what lacks is named."""
    company = user.having(INSECURE_REGISTRIES="", CA_BUNDLE=str(authority))
    settings = Settings(company.environ, {})
    reader, writer = (RegistryAuth(scheme="token", users={name: f"{name}-s3cret"}) for name in ("reader", "writer"))
    with (
        InMemoryRegistry(auth=reader, tls=tls, address=cluster.address) as bases,
        InMemoryRegistry(auth=writer, tls=tls, address=cluster.address) as images,
    ):
        login = Credentials(username="reader", secret="reader-s3cret")
        base = push_small_base(open_repository(bases.repository("bases"), login, settings=settings))
        order = {
            "dockerfile": f"FROM {base.repository}@{base.digest}\nCOPY file /file\n",
            "image_tag": images.repository("team/image:tag"),
            "push_credentials": {"username": "writer", "password": "writer-s3cret"},
        }
        once = "--image-download-retry=0 --push-retry=0"
        assert not company.having(KANIKO_FLAGS=once).build(**order)
        assert "UNAUTHORIZED" in company.said[-1] or "401" in company.said[-1]
        auths = {bases.host: {"auth": base64.b64encode(b"reader:reader-s3cret").decode()}}
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
        assert not user.having(INSECURE_REGISTRIES="", KANIKO_FLAGS=once).build(**order)
        assert "METAFLOW_PREBUILT_CA_BUNDLE" in user.said[-1]
        assert company.build(**order), company.said
    assert not any("s3cret" in line for line in company.said)


def test_a_registry_behind_a_proxy(
    user: Any, cluster: KubernetesCluster, authority: Path, tls: Any, template: Any, monkeypatch: pytest.MonkeyPatch
):
    """Kaniko goes through the proxy of its pod, steps of the build through the user's, and neither is in the image."""
    with (
        InMemoryRegistry(tls=tls, address=cluster.address) as hidden,
        ConnectProxy(hidden.host, COMPANY).serving(cluster.address) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        behind = user.having(CA_BUNDLE=str(authority), KANIKO_POD_TEMPLATE=template({"HTTPS_PROXY": proxy.url}))
        run = "import os; print('step goes by', os.environ['HTTPS_PROXY'])"
        assert behind.build(run, image_tag=f"{COMPANY}/team/image:tag"), user.said
        assert f"step goes by {proxy.url}" in user.said
        assert f"{COMPANY}:443" in proxy.asked
        monkeypatch.delenv("HTTPS_PROXY")
        settings = Settings({**behind.environ, "METAFLOW_PREBUILT_INSECURE_REGISTRIES": ""}, {})
        image = inspect_image(open_repository(hidden.repository("team/image"), settings=settings), "tag", foreign=True)
    assert proxy.url not in str(image.config.data)


def test_a_pod_pushes_as_itself(
    user: Any, cluster: KubernetesCluster, store: ObjectStore, authority: Path, tls: Any, template: Any
):
    """With the role of its service account, at ECR: no login is sent, and whoever deploys needs none and may make no Secret."""
    user.may([rule for rule in RULES if "secrets" not in rule["resources"]])
    user.namespace.kubectl("create", "serviceaccount", "builder")
    token = {"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}}
    auth = RegistryAuth(scheme="basic", users={"AWS": f"{ACCOUNT}-auth-token"})
    with (
        InMemoryRegistry(auth=auth, tls=tls, address=cluster.address) as registry,
        ConnectProxy(registry.host, ECR).serving(cluster.address) as proxy,
    ):
        variables = {
            "AWS_ENDPOINT_URL_ECR": store.url,
            "AWS_ENDPOINT_URL_STS": store.url,
            "AWS_REGION": "us-east-1",
            "AWS_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/builder",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/kaniko/identity/token",
            "HTTPS_PROXY": proxy.url,
        }
        mount = {"name": "identity", "mountPath": "/kaniko/identity"}
        identity = {"name": "identity", "projected": {"sources": [token]}}
        pod = template(variables, container={"volumeMounts": [mount]}, volumes=[identity])
        itself = user.having(
            CA_BUNDLE=str(authority),
            KANIKO_CREDENTIALS="pod",
            KANIKO_SERVICE_ACCOUNT="builder",
            KANIKO_POD_TEMPLATE=pod,
        )
        assert itself.build(image_tag=f"{ECR}/team/image:tag"), "\n".join(user.said)
        assert registry.count("PUT", "/v2/team/image/manifests/tag") == 1


def test_a_pod_is_somebody_to_google(
    user: Any, cluster: KubernetesCluster, template: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By its metadata server, as with Workload Identity: it reads its context from a bucket and pushes, and no Secret is made."""
    user.may([rule for rule in RULES if "secrets" not in rule["resources"]])
    order = user.order("print('a step ran')")
    packed = gzip.compress(b"".join(context_archive(order["dockerfile"], published_context(order["context_files"]))))
    (tmp_path / "google").mkdir()
    with (
        google_cloud(tmp_path / "google", address=cluster.address) as google,
        ConnectProxy(google.registry.host).serving(cluster.address) as proxy,
    ):
        google.make_repository()
        google.api.objects["contexts/build.tar.gz"] = packed
        for name, value in google.environ.items():  # whoever deploys looks at what was pushed, by a login of their own
            monkeypatch.setenv(name, value)
        variables = {
            "GCE_METADATA_HOST": google.api.url.removeprefix("http://"),
            "HTTPS_PROXY": proxy.url,
            "SSL_CERT_FILE": "/kaniko/prebuilt/authorities.pem",
        }
        itself = user.having(
            CA_BUNDLE=google.environ["METAFLOW_PREBUILT_CA_BUNDLE"],
            KANIKO_CREDENTIALS="pod",
            KANIKO_FLAGS="--context=gs://contexts/build.tar.gz",
            KANIKO_POD_TEMPLATE=template(variables),
        )
        path = f"{PROJECT}/metaflow-prebuilt/metaflow-prebuilt"
        assert itself.build("print('a step ran')", image_tag=f"{HOST}/{path}:tag"), "\n".join(user.said)
        assert google.registry.count("PUT", f"/v2/{path}/manifests/tag") == 1
        assert {"storage.objects.get", "artifactregistry.repositories.uploadArtifacts"} <= google.api.checked
        assert google.api.count("GET /computeMetadata/v1/instance/service-accounts/default/token") > 0
        close_connections()
    assert "a step ran" in user.said
    assert not any("could not be checked" in line for line in user.said)


def test_a_pod_deploys(user: Any, cluster: KubernetesCluster):
    """With its own service account, which has the documented Role, and no kubeconfig."""
    user.namespace.user("deployer", ROLE, "prebuilt-kaniko")
    assert "a step ran" in user.build_in_a_pod("deployer", "print('a step ran')")
    assert cluster.repository("trouble").resolve("tag") is not None


def test_a_pod_that_may_not_read_its_context(
    user: Any, store: ObjectStore, template: Any, monkeypatch: pytest.MonkeyPatch
):
    """What its service account lacks is named, and the object in the bucket is deleted."""
    import boto3

    for name, value in {**store.keys, "AWS_ENDPOINT_URL_S3": store.url}.items():
        monkeypatch.setenv(name, value)
    pod = template({"S3_ENDPOINT": store.url, "S3_FORCE_PATH_STYLE": "true", "AWS_EC2_METADATA_DISABLED": "true"})
    poor = user.having(KANIKO_CONTEXT_BUCKET="s3://flows/contexts", KANIKO_POD_TEMPLATE=pod)
    noise = random.Random(1).randbytes(1_000_000)  # noqa: S311 - it must not compress
    assert not poor.build(context_files={"file": noise})
    assert "s3:GetObject" in user.said[-1]
    s3 = boto3.session.Session().client("s3")
    assert "Contents" not in s3.list_objects_v2(Bucket="flows", Prefix="contexts/")
    s3.close()
