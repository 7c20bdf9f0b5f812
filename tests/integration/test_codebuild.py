"""The builder ``codebuild`` with its own buildspec, executed in a container beside a real Docker Engine."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import prebuilt.codebuild
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
from prebuilt.oci.amazon import iam_action
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.open import open_repository
from prebuilt.testing.amazon_codebuild import CodeBuilds, codebuild_of_moto
from prebuilt.testing.amazon_ecr import ACCOUNT, HOST, REGION, AmazonECR, amazon_ecr
from prebuilt.testing.amazon_permissions import is_allowed, take_role
from prebuilt.testing.amazon_stack import Stack, deploy_stack
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.conformance import BuilderContract
from prebuilt.testing.conformance.builder_world import NewBuilder
from prebuilt.testing.engines.binfmt import no_arm64_emulation
from prebuilt.testing.engines.codebuild_host import CodeBuildHost
from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.machine_image import import_buildkit_image
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.installed_wheel import installed_wheel
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.validate import inspect_image

pytestmark = pytest.mark.aws

TEMPLATE = Path(prebuilt.codebuild.__file__).with_name("cloudformation.yaml").read_text(encoding="utf-8")
PLATFORMS = [Platform.parse("linux/amd64"), Platform.parse("linux/arm64")]


@dataclass(frozen=True)
class Cloud:
    """The stack of the template, and a build host with a Docker Engine. Permissions are looked at."""

    amazon: AmazonECR
    stack: Stack
    docker: Docker
    builds: CodeBuilds
    environ: dict[str, str]

    @contextmanager
    def role_without(self, action: str) -> Iterator[None]:
        """Take a permission from the project's role for the time of the body."""
        iam, name = self.amazon.client("iam"), {"RoleName": self.stack.resources["Role"], "PolicyName": "build"}
        whole = iam.get_role_policy(**name)["PolicyDocument"]
        denied = {"Effect": "Deny", "Action": action, "Resource": "*"}
        less = json.dumps({**whole, "Statement": [*whole["Statement"], denied]})
        iam.put_role_policy(**name, PolicyDocument=less)
        try:
            yield
        finally:
            iam.put_role_policy(**name, PolicyDocument=json.dumps(whole))


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmazonECR]:
    """Amazon's APIs, and a registry that is ECR."""
    pytest.importorskip("moto", reason="moto plays Amazon's APIs: pip install 'moto[server]'")
    with amazon_ecr(tmp_path_factory.mktemp("amazon")) as amazon:
        yield amazon


@pytest.fixture(scope="module")
def stack(amazon: AmazonECR) -> Stack:
    """The template, deployed by the operator, who has put the login of another registry into a secret."""
    login = json.dumps({"username": "ci", "password": "hush-hush"})
    secret = amazon.client("secretsmanager").create_secret(Name="ci", SecretString=login)["ARN"]
    parameters = {"BaseRepository": "bases", "RegistrySecretArn": secret}
    return deploy_stack(amazon.client("cloudformation"), TEMPLATE, **parameters)


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
def cloud(amazon: AmazonECR, stack: Stack, docker: Docker, buildkit_image: str, python_base: str) -> Iterator[Cloud]:
    """CodeBuild whose builds are executed with the role of the stack, for somebody who has its policy for deployers."""
    import boto3

    docker.ask("pull", python_base)
    (project,) = amazon.client("codebuild").batch_get_projects(names=[stack.outputs["Project"]])["projects"]
    role = take_role(amazon.client, project["serviceRole"], service="codebuild.amazonaws.com", source=project["arn"])
    variables = {
        name: value for name, value in amazon.environ.items() if name.startswith("AWS_") and "FILE" not in name
    }
    host = CodeBuildHost(
        docker=docker,
        image=python_base,
        client=partial(amazon.client, **{name.lower(): value for name, value in role.items()}),
        environ={
            **variables,
            **role,
            "HTTPS_PROXY": amazon.proxy.url,
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": "/site-packages",
        },
        mounts={Path(boto3.__file__).parents[1]: "/site-packages:ro"},
    )
    deployer = amazon.user()  # who may do nothing of their own
    amazon.client("iam").attach_user_policy(UserName="deployer", PolicyArn=stack.outputs["DeployersPolicy"])
    settings = {
        "METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET": stack.outputs["Bucket"],
        "METAFLOW_PREBUILT_CODEBUILD_PROJECT": stack.outputs["Project"],
        "METAFLOW_PREBUILT_CODEBUILD_BUILDKIT_IMAGE": buildkit_image,
    }
    with codebuild_of_moto(host) as builds:
        yield Cloud(amazon, stack, docker, builds, {**amazon.environ, **deployer, **settings})


@pytest.fixture
def deploying(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    """The cloud, with this process configured to deploy there."""
    for name, value in cloud.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "metaflow"))
    for name, seconds in {"run._LOOK_S": 0.3, "log._LOOK_S": 0.1, "log._SETTLING_S": 0.3}.items():
        monkeypatch.setattr(f"prebuilt.codebuild.{name}", seconds)  # moto's CloudWatch has no delay
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
        bucket = self.cloud.stack.outputs["Bucket"]
        found = self.cloud.amazon.client("s3").list_objects_v2(Bucket=bucket).get("Contents", ())
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


def test_the_role_may_do_exactly_what_builds_do(in_ecr: Cloud) -> None:
    """With a base and a cache in Amazon ECR, and a new BuildKit each time: nothing is made twice, nothing was allowed in vain."""
    amazon, said = in_ecr.amazon, []
    base = push_base_image(open_repository(f"{HOST}/bases"), tag="exactly", platforms=[Platform.host()])
    dockerfile = f"FROM {base}\nRUN echo it is made | tee /made\n"
    amazon.permissions.asked.clear()
    amazon.registry.forget_requests()
    for number in (1, 2):
        said.clear()
        tag = f"{HOST}/metaflow-prebuilt:exactly-{number}"
        assert CodeBuildService().build_and_push(dockerfile, {}, tag, {}, said.append), "\n".join(said)
        assert any(re.fullmatch(r"#\d+ [\d.]+ it is made", line) for line in said) is (number == 1), "\n".join(said)
    iam, role = amazon.client("iam"), in_ecr.stack.resources["Role"]
    policy = iam.get_role_policy(RoleName=role, PolicyName="build")["PolicyDocument"]
    allowed = {each["Sid"]: each["Action"] for each in policy["Statement"]}
    done = {
        (repository, action)
        for request in amazon.registry.requests
        if (repository := re.sub(r"^/v2/(.*)/(?:manifests|blobs)/.*$", r"\1", request.path)) != "/v2/"
        for action in iam_action(request.method, request.path).split(" and ")
    }
    assert {action for repository, action in done if repository == "metaflow-prebuilt"} == set(allowed["PushImages"])
    assert {action for repository, action in done if repository == "bases"} == set(allowed["PullBases"])
    for repository, action in done:
        assert is_allowed(policy, action, f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}")
    asked = amazon.permissions.actions(f"assumed-role/{role}")
    # Of versions that this bucket has not; Amazon's guide wants it allowed.
    of_versions = {"s3:GetObjectVersion"}
    assert (
        asked
        == {*allowed["ReadContexts"], *allowed["FindBucket"], *allowed["WriteLog"], allowed["LogIn"]} - of_versions
    )


@pytest.mark.parametrize(
    "action",
    [
        *("s3:GetObject", "s3:GetBucketAcl", "s3:GetBucketLocation"),
        *("logs:CreateLogStream", "logs:PutLogEvents", "ecr:GetAuthorizationToken"),
    ],
)
def test_what_the_role_lacks_is_named(in_ecr: Cloud, python_base: str, action: str) -> None:
    """A denial inside the build is an error that says what to allow to the project's role."""
    said: list[str] = []
    with in_ecr.role_without(action):
        built = CodeBuildService().build_and_push(
            f"FROM {python_base}\n", {}, f"{HOST}/metaflow-prebuilt:denied", {}, said.append
        )
    assert not built
    # S3 may not say of what access is denied: then all that it may be is named.
    assert re.search(f"allow .*{action}.* to the role of the project", said[-1]), said[-1]


def test_what_the_role_lacks_in_ecr_is_named(in_ecr: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what only BuildKit sees, by what ECR says of it; the answer to a HEAD has no words."""
    monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_CACHE", "off")
    registry = in_ecr.amazon.registry
    # Where each call goes, and whether the base is there rather than the image.
    calls = {
        "ecr:BatchCheckLayerAvailability": ("HEAD", "/blobs/sha256:", False),
        "ecr:InitiateLayerUpload": ("POST", "/blobs/uploads/", False),
        "ecr:UploadLayerPart": ("PATCH|PUT", "/blobs/uploads/", False),
        "ecr:CompleteLayerUpload": ("PUT", "/blobs/uploads/", False),
        "ecr:PutImage": ("PUT", "/manifests/", False),
        "ecr:BatchGetImage": ("HEAD|GET", "/manifests/", True),
        "ecr:GetDownloadUrlForLayer": ("GET", "/blobs/sha256:", True),
    }

    def build(action: str) -> str:
        methods, path, is_of_base = calls[action]
        name, said = action.partition(":")[2].lower(), []
        in_ecr.amazon.client().create_repository(repositoryName=name)
        image, bases = ("metaflow-prebuilt", name) if is_of_base else (name, "bases")
        base = push_base_image(open_repository(f"{HOST}/{bases}"), tag="denied", platforms=[Platform.host()])
        message = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/x is not authorized to perform: {action} on resource: y"
        for method in methods.split("|"):
            registry.fail(method, f"/v2/{name}{path}", status=403, code="DENIED", message=message, times=100)
        dockerfile = f"FROM {base}\nRUN echo {name} > /made\n"
        assert not CodeBuildService().build_and_push(dockerfile, {}, f"{HOST}/{image}:denied", {}, said.append)
        return said[-1]

    with ThreadPoolExecutor(len(calls)) as threads:
        for action, said in zip(calls, threads.map(build, calls), strict=True):
            assert f"allow {action} to the role of the project" in said, said
    registry.faults.clear()


def test_a_login_comes_from_secrets_manager(
    deploying: Cloud, python_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another registry's login is a secret that the project's role reads; without one, or if it may not, the error says what to do."""
    secret = deploying.amazon.client("secretsmanager").describe_secret(SecretId="ci")["ARN"]
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"ci": "hush-hush"})) as registry:
        dockerfile, tag = f"FROM {python_base}\nLABEL made=yes\n", f"{registry.host}/team/image:one"
        said: list[str] = []
        assert not CodeBuildService().build_and_push(dockerfile, {}, tag, {}, said.append)
        assert "METAFLOW_PREBUILT_CODEBUILD_REGISTRY_SECRET" in said[-1]
        monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_REGISTRY_SECRET", secret)
        with deploying.role_without("secretsmanager:GetSecretValue"):
            assert not CodeBuildService().build_and_push(dockerfile, {}, tag, {}, said.append)
        assert "allow secretsmanager:GetSecretValue to the role of the project" in said[-1]
        said.clear()
        assert CodeBuildService().build_and_push(dockerfile, {}, tag, {}, said.append), "\n".join(said)
        given = json.dumps([said, [build.asked for build in deploying.builds.builds]], default=str)
        assert "hush-hush" not in given


def check_rights_of_deployer(cloud: Cloud) -> None:
    """Check that whoever deployed did nothing in ECR but what the policy allows, and was allowed nothing in vain."""
    amazon, arn = cloud.amazon, cloud.stack.outputs["DeployersPolicy"]
    iam = amazon.client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    policy = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    place = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/"
    done = {
        (place + request.path.removeprefix("/v2/").partition(part)[0], action)
        for request in amazon.registry.requests
        if amazon.passwords.owner(request.headers.get("Authorization")) == cloud.environ["AWS_ACCESS_KEY_ID"]
        for part in ("/manifests/", "/blobs/")
        if part in request.path
        for action in iam_action(request.method, request.path).split(" and ")
    }
    for resource, action in done:
        assert is_allowed(policy, action, resource), (resource, action)
    asked = {(each.resource, each.action) for each in amazon.permissions.asked if "user/deployer" in each.who}
    allowed = {
        (resource, action)
        for each in policy["Statement"]
        for resource in [each["Resource"]]
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
        if action.startswith("ecr:")
    }
    # Of large documents, and of images that another deploy pushes at the same time.
    rare = {(f"{place}metaflow-prebuilt{kind}", "ecr:GetDownloadUrlForLayer") for kind in ("", "-documents")}
    of_ecr = {(resource, action) for resource, action in asked if action.startswith("ecr:")}
    assert done | of_ecr == allowed - rare


def test_a_whole_bake(in_ecr: Cloud, pantry: Any, tmp_path: Path) -> None:
    """Registry and builder of Amazon work together without knowing each other: a build for each architecture, then none.

    The builds run in the project's own environment, on this machine, where nothing can run programs of another one.
    """
    for name in ("isal", "py-rattler"):
        pantry.index.add(installed_wheel(tmp_path / "tools", name))
    base = push_base_image(open_repository(f"{HOST}/bases"), tag="bake", platforms=PLATFORMS)
    amazon = in_ecr.amazon
    amazon.client().delete_repository(repositoryName="metaflow-prebuilt", force=True)
    amazon.permissions.asked.clear()
    amazon.registry.forget_requests()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    own = {
        "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache"),
        "METAFLOW_PREBUILT_CODEBUILD_IMAGE": "project",
        "METAFLOW_PREBUILT_CODEBUILD_ARM64_IMAGE": "project",
        "UV_DEFAULT_INDEX": pantry.index.url,
    }
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
    steps = [
        StepImage(
            step=platform.architecture,
            requirements=Requirements(python=xy, pypi={"talker": ""}, target=Target(platform=platform)),
            base_image=base,
        )
        for platform in PLATFORMS
    ]
    with no_arm64_emulation():
        baked = baker.bake(steps)
    again = baker.bake(steps)
    check_rights_of_deployer(in_ecr)
    assert len(in_ecr.builds.builds) == len(PLATFORMS)
    repository = open_repository(f"{HOST}/metaflow-prebuilt")
    for step, image in baked.items():
        assert (image.reused, again[step].reused) == (False, True)
        assert image.descriptor == again[step].descriptor == repository.resolve(image.reference.rpartition("@")[2])
        report = inspect_image(repository, image.descriptor.digest, platform=Platform.parse(f"linux/{step}"))
        assert report.config.data["architecture"] == step
        assert f"opt/prebuilt/env/lib/python{xy}/site-packages/talker/cli.py" in report.tree
