"""Settings of the builder ``codebuild``, and what comes of them."""

from __future__ import annotations

from typing import Any

import pytest

from prebuilt.codebuild.config import CodeBuildConfig
from prebuilt.codebuild.job import BuildJob
from prebuilt.codebuild.start import start_parameters
from prebuilt.core.errors import BuildError, SettingError
from prebuilt.core.settings import Settings

REQUIRED = {"S3_BUCKET": "contexts", "PROJECT": "builds"}
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/image:v1"

OTHER = "999999999999.dkr.ecr.us-east-1.amazonaws.com"


def config(**values: str) -> CodeBuildConfig:
    """Return what the settings of these names say."""
    environ = {f"METAFLOW_PREBUILT_CODEBUILD_{name}": value for name, value in {**REQUIRED, **values}.items()}
    return CodeBuildConfig.from_settings(Settings(environ, {}))


def started(reference: str = ECR, platform: str = "linux/amd64", **values: str) -> dict[str, Any]:
    """Return the parameters of a build."""
    import dataclasses

    job = dataclasses.replace(BuildJob.to(reference), platform=platform)
    return start_parameters(job, config(**values), key="prefix/key.zip", token="token")


def variables(**values: str) -> dict[str, str]:
    """Return the variables of a build."""
    return {each["name"]: each["value"] for each in started(**values)["environmentVariablesOverride"]}


def test_the_profile_of_metaflow_is_read() -> None:
    """Where an operator configures Metaflow, builds are configured, too."""
    profile = {"METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET": "one-bucket", "PREBUILT_CODEBUILD_PROJECT": "one-project"}
    read = CodeBuildConfig.from_settings(Settings({}, profile))
    assert (read.bucket, read.project, read.region) == ("one-bucket", "one-project", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S3_BUCKET", "s3://bucket"),
        ("S3_BUCKET", "Upper"),
        ("S3_PREFIX", "with space"),
        ("PROJECT", "a/b"),
        ("REGION", "Ireland"),
        ("TIMEOUT", "soon"),
        ("CACHE", "maybe"),
        ("BUILDKIT_IMAGE", "Not An Image"),
        ("BUILDSPEC", "other.yml"),
    ],
)
def test_malformed_values_are_named(name: str, value: str) -> None:
    """The setting is in the error."""
    with pytest.raises(SettingError, match=f"METAFLOW_PREBUILT_CODEBUILD_{name}"):
        config(**{name: value})


def test_a_project_of_another_account_is_refused() -> None:
    """AWS shares projects for looking at: an ARN is told what to set instead, before anything is uploaded."""
    with pytest.raises(SettingError, match=r"CODEBUILD_PROJECT.*another account") as caught:
        config(PROJECT="arn:aws:codebuild:eu-west-1:999999999999:project/builds")
    assert "the project's name, builds," in caught.value.remedy
    assert "credentials of the account 999999999999" in caught.value.remedy


@pytest.mark.parametrize(("seconds", "minutes"), [("1", 5), ("301", 6), ("7200", 120), ("999999", 2160)])
def test_limits_of_time_are_minutes_there(seconds: str, minutes: int) -> None:
    """Seconds here, whole minutes there, in the bounds that CodeBuild has."""
    assert started(TIMEOUT=seconds)["timeoutInMinutesOverride"] == minutes
    assert started(TIMEOUT=seconds)["queuedTimeoutInMinutesOverride"] == min(minutes, 480)


def test_environments_are_settable() -> None:
    """Image and compute type; an image of one's own is pulled by the project's role."""
    asked = started(IMAGE=ECR, COMPUTE_TYPE="BUILD_GENERAL1_LARGE")
    assert (asked["imageOverride"], asked["computeTypeOverride"]) == (ECR, "BUILD_GENERAL1_LARGE")
    assert asked["imagePullCredentialsTypeOverride"] == "SERVICE_ROLE"
    assert started(platform="linux/arm64", IMAGE=ECR)["imageOverride"].startswith("aws/codebuild/amazonlinux-aarch64")
    assert started(platform="linux/arm64", ARM64_IMAGE=ECR)["imageOverride"] == ECR


def test_the_projects_own_environment() -> None:
    """Said to be the project's, image and type are left as they are there."""
    asked = started(IMAGE="project")
    assert not asked.keys() & {"imageOverride", "environmentTypeOverride", "imagePullCredentialsTypeOverride"}
    assert "computeTypeOverride" not in asked


def test_the_projects_own_buildspec() -> None:
    """Projects of earlier releases have one: it gets the variables that were published."""
    asked = started(BUILDSPEC="project")
    assert "buildspecOverride" not in asked
    assert {"BUILD_CONTEXT_KEY", "IMAGE_TAG"} <= {each["name"] for each in asked["environmentVariablesOverride"]}


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ("on", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/image:layers-buildcache"),
        ("r.example/cache", "r.example/cache:layers-buildcache"),
        ("r.example:5000/cache:mine", "r.example:5000/cache:mine"),
    ],
)
def test_where_the_cache_is(value: str, reference: str) -> None:
    """Beside the images, or in a place of its own."""
    assert variables(CACHE=value)["IMAGE_CACHES"] == reference


def test_the_cache_can_be_off() -> None:
    """Then no build reads or writes one."""
    assert "IMAGE_CACHES" not in variables(CACHE="off")


def test_a_secret_is_named_and_never_known() -> None:
    """CodeBuild reads it from Secrets Manager; Amazon ECR needs none."""
    asked = started("r.example/team/image:v1", REGISTRY_SECRET="team/login")
    secret = [each for each in asked["environmentVariablesOverride"] if each["type"] == "SECRETS_MANAGER"]
    assert secret == [
        {"name": "REGISTRY_USER", "value": "team/login:username", "type": "SECRETS_MANAGER"},
        {"name": "REGISTRY_PASSWORD", "value": "team/login:password", "type": "SECRETS_MANAGER"},
    ]
    assert "SECRETS_MANAGER" not in str(started(ECR, REGISTRY_SECRET="team/login"))


def test_docker_hub_has_no_name_at_login() -> None:
    """`docker login` without a registry is Docker Hub's."""
    values = {each["name"]: each["value"] for each in started("team/image:v1")["environmentVariablesOverride"]}
    assert values["IMAGE_TAG"] == "team/image:v1"
    assert "REGISTRY_HOST" not in values


@pytest.mark.parametrize(
    ("dockerfile", "values"),
    [
        (f"FROM {OTHER}/bases/python:3\n", {}),
        (f"FROM --platform=$BUILDPLATFORM {OTHER}/tools:1 AS tools\nFROM python:3-slim\nCOPY --from=tools / /\n", {}),
        ("FROM python:3-slim\n", {"CACHE": f"{OTHER}/cache:mine"}),
        ("FROM python:3-slim\n", {"BUILDKIT_IMAGE": f"{OTHER}/buildkit@sha256:{'0' * 64}"}),
    ],
    ids=["the base", "the stage of the tools", "the cache", "BuildKit"],
)
def test_each_registry_of_amazon_is_logged_in_to(dockerfile: str, values: dict[str, str]) -> None:
    """The role logs in wherever the build pulls from or writes to, in that registry's region."""
    job = BuildJob.to(ECR).on(dockerfile)
    assert job.variables("key", config(**values))["ECR_REGISTRIES"] == (
        f"123456789012.dkr.ecr.eu-west-1.amazonaws.com=eu-west-1 {OTHER}=us-east-1"
    )


def test_output_is_one_line_of_csv() -> None:
    """Annotations may hold what separates fields."""
    import dataclasses

    job = dataclasses.replace(BuildJob.to(ECR), compression="zstd", annotations={"name": 'with "quotes", and a comma'})
    assert job.variables("key", config())["IMAGE_OUTPUT"] == (
        f"type=image,name={ECR},push=true,oci-mediatypes=true,compression=zstd,rewrite-timestamp=true,"
        '"annotation.name=with ""quotes"", and a comma"'
    )


def test_layouts_are_no_registries() -> None:
    """An image layout is a folder of this machine."""
    with pytest.raises(BuildError, match="METAFLOW_PREBUILT_IMAGE_REGISTRY"):
        BuildJob.to("oci:/folder:tag")
