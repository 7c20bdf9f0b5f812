"""The builder ``codebuild`` with its own buildspec, executed in a container beside a real Docker Engine."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prebuilt.codebuild import CodeBuildService
from prebuilt.core.bake import Baker, StepImage
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.ecr import ECRRegistry
from prebuilt.lock.resolver import LockResolver
from prebuilt.lock.stage.materials import LockMaterials
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.open import open_repository
from prebuilt.testing.amazon_codebuild import PROJECT, CodeBuilds, codebuild_of_moto, create_project
from prebuilt.testing.amazon_ecr import HOST, REGION, AmazonECR, amazon_ecr
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.conformance import BuilderContract
from prebuilt.testing.conformance.builder_world import NewBuilder
from prebuilt.testing.engines.codebuild_host import CodeBuildHost
from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.machine_image import import_buildkit_image
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.installed_wheel import installed_wheel
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.validate import inspect_image

pytestmark = pytest.mark.aws

BUCKET = "contexts"


@dataclass(frozen=True)
class Cloud:
    """A project, a bucket, and a build host with a Docker Engine."""

    amazon: AmazonECR
    docker: Docker
    builds: CodeBuilds
    environ: dict[str, str]


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmazonECR]:
    """Amazon's APIs, and a registry that is ECR."""
    pytest.importorskip("moto", reason="moto plays Amazon's APIs: pip install 'moto[server]'")
    with amazon_ecr(tmp_path_factory.mktemp("amazon")) as amazon:
        amazon.reset()
        amazon.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        create_project(amazon.client("codebuild"))
        yield amazon


@pytest.fixture(scope="module")
def docker(amazon: AmazonECR) -> Iterator[Docker]:
    """An engine as it is in Amazon's images, which reaches ECR."""
    certificate = amazon.environ["METAFLOW_PREBUILT_CA_BUNDLE"]
    trust = {"HTTPS_PROXY": amazon.proxy.url, "NO_PROXY": "127.0.0.1", "SSL_CERT_FILE": certificate, "SSL_CERT_DIR": ""}
    with wanted_engine(), docker_engine("current", buildx=True, environ=trust) as docker:
        yield docker


@pytest.fixture(scope="module")
def buildkit_image(amazon: AmazonECR, docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of BuildKit that trusts the registry."""
    with wanted_engine():
        plain = import_buildkit_image(docker)
    folder = tmp_path_factory.mktemp("buildkit-image")
    (folder / "amazon.pem").write_bytes(Path(amazon.environ["METAFLOW_PREBUILT_CA_BUNDLE"]).read_bytes())
    (folder / "Dockerfile").write_text(f"FROM {plain}\nCOPY amazon.pem /\nENV SSL_CERT_FILE=/amazon.pem\n")
    docker.ask("build", "--tag=buildkit:trusting", str(folder))
    return "buildkit:trusting"


@pytest.fixture(scope="module")
def cloud(amazon: AmazonECR, docker: Docker, buildkit_image: str, python_base: str) -> Iterator[Cloud]:
    """CodeBuild whose builds are executed."""
    import boto3

    docker.ask("pull", python_base)
    packages = Path(boto3.__file__).parents[1]
    role = {name: value for name, value in amazon.environ.items() if name.startswith("AWS_") and "FILE" not in name}
    host = CodeBuildHost(
        docker=docker,
        image=python_base,
        client=amazon.client,
        environ={
            **role,
            "HTTPS_PROXY": amazon.proxy.url,
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": "/site-packages",
        },
        mounts={packages: "/site-packages:ro"},
    )
    settings = {
        "METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET": BUCKET,
        "METAFLOW_PREBUILT_CODEBUILD_PROJECT": PROJECT,
        "METAFLOW_PREBUILT_CODEBUILD_BUILDKIT_IMAGE": buildkit_image,
    }
    with codebuild_of_moto(host) as builds:
        yield Cloud(amazon, docker, builds, {**amazon.environ, **settings})


@pytest.fixture
def deploying(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    """The cloud, with this process configured to deploy there."""
    for name, value in cloud.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "metaflow"))
    cloud.builds.builds.clear()
    return cloud


class TestCodeBuildService(BuilderContract):
    """Every clause of the contract; logins are the project's, not the request's."""

    is_reproducible = True
    returns_descriptor = True

    @pytest.fixture
    def new_builder(self, deploying: Cloud) -> NewBuilder:
        """Return the class."""
        self.cloud = deploying
        return CodeBuildService

    def leftovers(self) -> list[str]:
        """Return the contexts in the bucket, and the builds that go on."""
        found = self.cloud.amazon.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", ())
        going_on = [each.data["id"] for each in self.cloud.builds.builds if not each.data["buildComplete"]]
        return [*(each["Key"] for each in found), *going_on]


@pytest.fixture
def in_ecr(deploying: Cloud) -> Cloud:
    """The cloud, with repositories for images and for their base."""
    for name in ("metaflow-prebuilt", "bases"):
        if deploying.amazon.repository(name) is None:
            deploying.amazon.client().create_repository(repositoryName=name)
    return deploying


def test_the_role_logs_in_to_ecr(in_ecr: Cloud) -> None:
    """Pushing to Amazon ECR, and pulling a base from there, needs no password of anybody: the build asks for one itself."""
    base = push_base_image(open_repository(f"{HOST}/bases"), tag="python", platforms=[Platform.host()])
    said: list[str] = []
    tag = f"{HOST}/metaflow-prebuilt:one"
    assert CodeBuildService().build_and_push(f"FROM {base}\nLABEL made=yes\n", {}, tag, {}, said.append), "\n".join(
        said
    )
    assert open_repository(f"{HOST}/metaflow-prebuilt").resolve("one") is not None
    build = in_ecr.builds.builds[-1]
    given = json.dumps([build.asked, said], default=str)
    assert not [password for password in in_ecr.amazon.passwords.good if password in given]


def test_the_cache_is_used_by_the_next_build(deploying: Cloud, registry_host: str, python_base: str) -> None:
    """A new BuildKit finds in the registry what an earlier one has made, and does not make it again."""
    dockerfile = f"FROM {python_base}\nRUN echo it is made | tee /made\n"
    said: list[str] = []
    for number in (1, 2):
        said.clear()
        tag = f"{registry_host}/codebuild/cached:{number}"
        assert CodeBuildService().build_and_push(dockerfile, {}, tag, {}, said.append), "\n".join(said)
        assert any(re.fullmatch(r"#\d+ [\d.]+ it is made", line) for line in said) is (number == 1), "\n".join(said)


def test_a_login_comes_from_secrets_manager(
    deploying: Cloud, python_base: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Another registry's login is a secret that the project's role reads; without one, the error says how to give it."""
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"ci": "hush-hush"})) as registry:
        dockerfile, tag = f"FROM {python_base}\nLABEL made=yes\n", f"{registry.host}/team/image:one"
        said: list[str] = []
        assert not CodeBuildService().build_and_push(dockerfile, {}, tag, {}, said.append)
        assert "METAFLOW_PREBUILT_CODEBUILD_REGISTRY_SECRET" in said[-1]
        secrets = deploying.amazon.client("secretsmanager")
        arn = secrets.create_secret(Name="ci", SecretString='{"username": "ci", "password": "hush-hush"}')["ARN"]
        monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_REGISTRY_SECRET", arn)
        said.clear()
        assert CodeBuildService().build_and_push(dockerfile, {}, tag, {}, said.append), "\n".join(said)
        assert "hush-hush" not in "".join(said)


def test_a_whole_bake(in_ecr: Cloud, pantry: Any, tmp_path: Path) -> None:
    """Registry and builder of Amazon work together without knowing each other: one build, then none; the digest is the registry's."""
    for name in ("isal", "py-rattler"):
        pantry.index.add(installed_wheel(tmp_path / "tools", name))
    base = push_base_image(open_repository(f"{HOST}/bases"), tag="bake", platforms=[Platform.host()])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    own = {"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache"), "UV_DEFAULT_INDEX": pantry.index.url}
    settings = Settings({**kept, **own}, {})
    registry, resolver, progress = ECRRegistry(settings), LockResolver(settings), LineProgress(lambda _: None)
    documents = registry.documents()
    baker = Baker(
        resolver=resolver,
        bases=BaseImageLookup(settings, documents, FolderDocuments(tmp_path / "facts")),
        registry=registry,
        builder=CodeBuildService(settings),
        documents=documents,
        progress=progress,
        has_bytecode=lambda _: True,
        materials=LockMaterials(
            settings=settings, locks=Locks(resolver=resolver, documents=documents, progress=progress)
        ),
    )
    xy = f"{sys.version_info[0]}.{sys.version_info[1]}"
    requirements = Requirements(python=xy, pypi={"talker": ""}, target=Target(platform=Platform.host()))
    step = StepImage(step="step", requirements=requirements, base_image=base)
    baked, again = baker.bake([step])["step"], baker.bake([step])["step"]
    assert (baked.reused, again.reused) == (False, True)
    assert len(in_ecr.builds.builds) == 1
    repository = open_repository(f"{HOST}/metaflow-prebuilt")
    assert baked.descriptor == again.descriptor == repository.resolve(baked.reference.rpartition("@")[2])
    tree = inspect_image(repository, baked.descriptor.digest).tree
    assert f"opt/prebuilt/env/lib/python{xy}/site-packages/talker/cli.py" in tree
