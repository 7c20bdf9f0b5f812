"""The CloudFormation template, deployed: its outputs are the settings, and its policies allow what builds do and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import prebuilt.codebuild
from prebuilt.codebuild import CodeBuildService
from prebuilt.codebuild.failure import AmazonError
from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.errors import CancelledError
from prebuilt.core.tree import BytesContent
from prebuilt.testing.amazon_codebuild import PROJECT, RemoteBuild
from prebuilt.testing.amazon_ecr import ACCOUNT, REGION
from prebuilt.testing.amazon_permissions import is_allowed, take_role
from prebuilt.testing.amazon_stack import Stack, deploy_stack

Make = Callable[..., BuildRequest]

TEMPLATE = Path(prebuilt.codebuild.__file__).with_name("cloudformation.yaml").read_text(encoding="utf-8")
PROJECTS = f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project"
IN_TWO_PARTS = {"large": BytesContent(bytes(6 << 20))}


@pytest.fixture
def stack(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack, beside a project and a bucket that somebody else has made; its outputs are this process's settings."""
    stack = deploy_stack(cloud.client("cloudformation"), TEMPLATE, ProjectName="from-the-template")
    for name, output in {"PROJECT": "Project", "S3_BUCKET": "Bucket", "REGION": "Region"}.items():
        monkeypatch.setenv(f"METAFLOW_PREBUILT_CODEBUILD_{name}", stack.outputs[output])
    return stack


@pytest.fixture
def deployer(cloud: Any, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is somebody who has the policy for deployers, and no other."""
    for name, value in cloud.amazon.user().items():
        monkeypatch.setenv(name, value)
    cloud.client("iam").attach_user_policy(UserName="deployer", PolicyArn=stack.outputs["DeployersPolicy"])


def policy_of_deployers(cloud: Any, stack: Stack) -> dict[str, Any]:
    """Return the document as IAM has it."""
    iam, arn = cloud.client("iam"), stack.outputs["DeployersPolicy"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document: dict[str, Any] = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    return document


def test_deployers_may_do_exactly_what_is_done(
    cloud: Any, stack: Stack, deployer: None, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builds that work, that are large, that are cancelled on their way to S3 and when they run: no call is denied, none was allowed in vain."""
    monkeypatch.setattr("prebuilt.codebuild.upload._PART_BYTES", 5 << 20)
    builder, cancellation = CodeBuildService(), Cancellation()
    assert builder.build(make_request(), heard) is not None
    assert builder.build(make_request(files=IN_TWO_PARTS), heard) is not None

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        cancellation.cancel()
        assert build.is_stopped.wait(30)

    cloud.plays(host)
    with pytest.raises(CancelledError):
        builder.build(make_request(cancellation=cancellation), heard)
    on_its_way = Cancellation()
    monkeypatch.setattr(heard, "advance", lambda size_bytes: on_its_way.cancel())
    with pytest.raises(CancelledError):
        builder.build(make_request(files=IN_TWO_PARTS, cancellation=on_its_way), heard)
    assert [note for note in heard.notes if "allow" in note] == []
    allowed = {action for each in policy_of_deployers(cloud, stack)["Statement"] for action in as_list(each["Action"])}
    of_builder = {action for action in allowed if not action.startswith("ecr:")}  # those are the registry's
    assert cloud.amazon.permissions.actions("user/deployer") == of_builder
    assert cloud.builds.builds[0].data["projectName"] == "from-the-template"


@pytest.mark.parametrize(("setting", "other"), [("S3_BUCKET", "contexts"), ("PROJECT", PROJECT)])
def test_deployers_may_do_nothing_elsewhere(
    deployer: None, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, setting: str, other: str
) -> None:
    """A bucket and a project that are not the stack's are none of theirs."""
    monkeypatch.setenv(f"METAFLOW_PREBUILT_CODEBUILD_{setting}", other)
    with pytest.raises(AmazonError, match="to whoever deploys"):
        CodeBuildService().build(make_request(), heard)


def test_the_role_is_the_projects_alone(cloud: Any, stack: Stack) -> None:
    """CodeBuild may take the role for the project of the stack, and for no other one."""
    (project,) = cloud.client("codebuild").batch_get_projects(names=[stack.outputs["Project"]])["projects"]
    assert project["serviceRole"].endswith(f":role/{stack.resources['Role']}")
    take = partial(take_role, cloud.client, project["serviceRole"])
    assert take(service="codebuild.amazonaws.com", source=project["arn"]).keys() >= {"AWS_SESSION_TOKEN"}
    for service, source in ("codebuild", f"{PROJECTS}/another"), ("lambda", project["arn"]):
        with pytest.raises(PermissionError, match="sts:AssumeRole"):
            take(service=f"{service}.amazonaws.com", source=source)


@pytest.mark.parametrize(
    ("parameters", "action", "repository", "expected"),
    [
        ({}, "ecr:PutImage", "metaflow-prebuilt-documents", True),
        ({}, "ecr:PutImage", "metaflow-prebuilt", False),
        ({}, "ecr:BatchGetImage", "metaflow-prebuilt", True),
        ({}, "ecr:CreateRepository", "another", False),
        ({"DocumentsRepository": "team/*"}, "ecr:PutImage", "team/locks", True),
        ({"BaseRepository": "bases"}, "ecr:GetDownloadUrlForLayer", "bases", True),
    ],
)
def test_what_parameters_let_deployers_do_in_ecr(
    cloud: Any, parameters: dict[str, str], action: str, repository: str, *, expected: bool
) -> None:
    """Documents are pushed by whoever deploys, images are found; the images themselves are the project's to push."""
    stack = deploy_stack(cloud.client("cloudformation"), TEMPLATE, **parameters)
    arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}"
    assert is_allowed(policy_of_deployers(cloud, stack), action, arn) is expected


@pytest.mark.parametrize(
    ("parameters", "action", "resource", "expected"),
    [
        ({}, "ecr:PutImage", "ecr:{place}:repository/metaflow-prebuilt", True),
        ({}, "ecr:PutImage", "ecr:{place}:repository/metaflow-prebuilt-documents", False),
        ({}, "ecr:BatchGetImage", "ecr:{place}:repository/bases", False),
        ({"BaseRepository": "bases"}, "ecr:BatchGetImage", "ecr:{place}:repository/bases", True),
        ({"BaseRepository": "bases"}, "ecr:PutImage", "ecr:{place}:repository/bases", False),
        ({"ImageRepository": "team/*"}, "ecr:PutImage", "ecr:{place}:repository/team/flows", True),
        ({}, "secretsmanager:GetSecretValue", "secretsmanager:{place}:secret:login-a1B2c3", False),
        ({}, "logs:PutLogEvents", "logs:{place}:log-group:/aws/codebuild/metaflow-prebuilt:log-stream:one", True),
        ({}, "logs:PutLogEvents", "logs:{place}:log-group:/aws/codebuild/another:log-stream:one", False),
        ({}, "s3:PutObject", "s3:::contexts/key", False),
    ],
)
def test_what_parameters_let_the_role_do(
    cloud: Any, parameters: dict[str, str], action: str, resource: str, *, expected: bool
) -> None:
    """The role may do what the parameters say, on what they name."""
    stack = deploy_stack(cloud.client("cloudformation"), TEMPLATE, **parameters)
    found = cloud.client("iam").get_role_policy(RoleName=stack.resources["Role"], PolicyName="build")
    arn = f"arn:aws:{resource.format(place=f'{REGION}:{ACCOUNT}')}"
    assert is_allowed(found["PolicyDocument"], action, arn) is expected


def test_logs_are_kept_as_long_as_was_asked(cloud: Any) -> None:
    """The log group is made with the stack, for the project, with its retention."""
    deploy_stack(cloud.client("cloudformation"), TEMPLATE, LogRetentionDays="7")
    (group,) = cloud.client("logs").describe_log_groups()["logGroups"]
    (project,) = cloud.client("codebuild").batch_get_projects(names=[PROJECT])["projects"]
    assert (group["logGroupName"], group["retentionInDays"]) == (f"/aws/codebuild/{PROJECT}", 7)
    assert project["logsConfig"]["cloudWatchLogs"]["groupName"] == group["logGroupName"]
    assert project["environment"]["privilegedMode"] is True


def as_list(value: str | list[str]) -> list[str]:
    """Return one value as a list of it."""
    return [value] if isinstance(value, str) else value
