"""What users are told: links, and causes of failures."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prebuilt.codebuild.cause import find_cause
from prebuilt.codebuild.console import console_link
from prebuilt.codebuild.job import BuildJob
from prebuilt.codebuild.start import buildspec
from prebuilt.codebuild.state import PHASES, BuildState

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("partition", "region", "console"),
    [
        ("aws", "eu-west-1", "eu-west-1.console.aws.amazon.com"),
        ("aws-cn", "cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("aws-us-gov", "us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_links_are_right_in_each_partition(partition: str, region: str, console: str) -> None:
    """The console of each partition has a name of its own."""
    link = console_link(f"arn:{partition}:codebuild:{region}:123456789012:build/images:6c4e")
    path = "codesuite/codebuild/123456789012/projects/images/build/images%3A6c4e/log"
    assert link == f"https://{console}/{path}?region={region}"


def test_a_build_without_a_known_console_has_its_arn() -> None:
    """Nobody is sent to the wrong partition."""
    arn = "arn:aws-iso:codebuild:us-iso-east-1:123456789012:build/images:6c4e"
    assert console_link(arn) == arn


def ended(phase: str = "BUILD", status: str = "FAILED", reason: str = "") -> BuildState:
    """Return a build that has failed, and what CodeBuild says of it."""
    return BuildState.parse(
        {
            "id": "images:6c4e",
            "arn": "arn:aws:codebuild:eu-west-1:123456789012:build/images:6c4e",
            "buildStatus": status,
            "phases": [
                {"phaseType": "QUEUED", "phaseStatus": "SUCCEEDED"},
                {"phaseType": phase, "phaseStatus": status, "contexts": [{"statusCode": "", "message": reason}]},
            ],
        }
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "User: arn:aws:sts::1:assumed-role/x is not authorized to perform: ecr:PutImage on resource",
            "allow ecr:PutImage to the role",
        ),
        (
            "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock",
            "METAFLOW_PREBUILT_CODEBUILD_IMAGE",
        ),
        ("docker: 'buildx' is not a docker command.", "plugin buildx"),
        (
            "toomanyrequests: You have reached your unauthenticated pull rate limit",
            "METAFLOW_PREBUILT_CODEBUILD_BUILDKIT_IMAGE",
        ),
        (
            f"ERROR: failed to push: unexpected status from HEAD request to https://{ECR}/v2/i/blobs/sha256:0: 403 Forbidden",
            "allow ecr:BatchCheckLayerAvailability to the role",
        ),
        ("#7 3.1 Error: index.example answered 403 Forbidden", "see what it said"),
        (
            "ERROR: bases.example/python:3: failed to resolve source metadata for bases.example/python:3: 401 Unauthorized",
            "beside the images: bases.example wants a login",
        ),
        (
            f"ERROR: failed to resolve source metadata for {ECR}/bases:3: no basic auth credentials",
            f"allow the role of the project to use {ECR}",
        ),
        ("#9 2.0 OSError: No space left on device", "METAFLOW_PREBUILT_CODEBUILD_COMPUTE_TYPE"),
        ("The repository with name 'x' does not exist in the registry", "METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY"),
        ("exec /usr/bin/python3: exec format error", "base image"),
        ("write /x: no space left on device", "METAFLOW_PREBUILT_CODEBUILD_COMPUTE_TYPE"),
        ("push access denied: 401 Unauthorized", "METAFLOW_PREBUILT_CODEBUILD_REGISTRY_SECRET"),
        ("something else", "see what it said"),
    ],
)
def test_known_causes_have_a_remedy(line: str, words: str) -> None:
    """What the log's end says decides what is advised."""
    reason, remedy = find_cause(ended(), ["#12 ERROR", line], job=BuildJob.to("r.example/i:t"))
    assert words in remedy
    assert reason.startswith("it ended as FAILED while building and pushing")


def test_buildkits_own_word_is_the_reason() -> None:
    """That a command ended with status 1 says nothing to anybody."""
    lines = [
        "#7 ERROR: it broke",
        "ERROR: failed to solve: it broke",
        "[Container] Phase complete: BUILD State: FAILED",
    ]
    reason, _ = find_cause(ended(), lines, job=BuildJob.to("r.example/i:t"))
    assert reason == "it ended as FAILED while building and pushing: failed to solve: it broke"


def test_where_nothing_was_said_the_console_may_know() -> None:
    """Without a line of its log, the error leads to the build's page."""
    _, remedy = find_cause(ended(), [], job=BuildJob.to("r.example/i:t"))
    assert "https://eu-west-1.console.aws.amazon.com/codesuite" in remedy


@pytest.mark.parametrize(
    ("phase", "reason", "words"),
    [
        ("DOWNLOAD_SOURCE", "AccessDenied: Access Denied", "allow s3:GetObject, s3:GetObjectVersion"),
        ("DOWNLOAD_SOURCE", "Invalid version id specified", "take the source version out of the project"),
        (
            "DOWNLOAD_SOURCE",
            "BucketRegionError: incorrect region",
            "METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET to a bucket in",
        ),
        ("DOWNLOAD_SOURCE", "Secrets Manager Error Message: can't find the secret", "_CODEBUILD_REGISTRY_SECRET"),
        (
            "DOWNLOAD_SOURCE",
            "User is not authorized to perform: secretsmanager:GetSecretValue on resource: x",
            "allow secretsmanager:GetSecretValue to the role",
        ),
        *(
            (
                "DOWNLOAD_SOURCE",
                f"User is not authorized to perform: {action} on resource: x",
                f"allow {action} to the role",
            )
            for action in ("s3:GetObjectVersion", "kms:Decrypt")
        ),
        *(
            ("DOWNLOAD_SOURCE", "AccessDenied: Access Denied", action)  # of S3, which may not say of what
            for action in ("s3:GetObject,", "s3:GetObjectVersion", "s3:GetBucketAcl", "s3:GetBucketLocation")
        ),
        (
            "PROVISIONING",
            "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE: Unable to pull",
            "check METAFLOW_PREBUILT_CODEBUILD_IMAGE",
        ),
        ("SUBMITTED", "CodeBuild is not authorized to perform: sts:AssumeRole on arn:x", "by its trust policy"),
        (
            "QUEUED",
            "User is not authorized to perform: logs:CreateLogStream on resource: x",
            "allow logs:CreateLogStream to the role",
        ),
    ],
)
def test_what_fails_before_the_first_command(phase: str, reason: str, words: str) -> None:
    """There is no log then: what CodeBuild itself says decides."""
    _, remedy = find_cause(ended(phase, reason=reason), [], job=BuildJob.to(f"{ECR}/i:t"))
    assert words in remedy


def test_every_phase_has_words() -> None:
    """What CodeBuild may say is what botocore's model lists."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("codebuild")
    assert set(model.shape_for("BuildPhaseType").enum) == PHASES.keys()


def test_the_buildspec_is_a_buildspec() -> None:
    """Version, phases and exported variables are as CodeBuild reads them; it holds no secret, and each command is text."""
    spec = yaml.safe_load(buildspec())
    assert spec["version"] == 0.2
    assert spec["phases"].keys() == {"pre_build", "build"}
    assert spec["env"] == {"exported-variables": ["IMAGE_DIGEST", "IMAGE_MEDIA_TYPE", "IMAGE_SIZE"]}
    commands = [
        each for phase in spec["phases"].values() for part in ("commands", "finally") for each in phase.get(part, ())
    ]
    assert {type(command) for command in commands} == {str}
    assert "--password-stdin" in "".join(commands)


def test_the_buildspec_is_in_the_package() -> None:
    """Data files travel in the wheel."""
    import prebuilt.codebuild

    assert (Path(prebuilt.codebuild.__file__).parent / "buildspec.yaml").is_file()
