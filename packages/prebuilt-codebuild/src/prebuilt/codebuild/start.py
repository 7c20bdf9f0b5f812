"""What CodeBuild is asked for when a build is started."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from prebuilt.codebuild.config import OF_THE_PROJECT, CodeBuildConfig
from prebuilt.codebuild.job import BuildJob

BUILDSPEC = "prebuilt-buildspec.yml"
"""Name of the buildspec in each context."""

_AMAZONS_IMAGES = "aws/codebuild/"
# Source: https://docs.aws.amazon.com/codebuild/latest/APIReference/API_StartBuild.html
_TIMEOUT_MINUTES = (5, 2160)
_QUEUED_MINUTES = (5, 480)


def buildspec() -> str:
    """Return the buildspec that is shipped with this package."""
    return files("prebuilt.codebuild").joinpath("buildspec.yaml").read_text(encoding="utf-8")


def start_parameters(job: BuildJob, config: CodeBuildConfig, *, key: str, token: str) -> dict[str, Any]:
    """Return the parameters of ``StartBuild`` for the context at `key`.

    Calls with the same `token` start one build, however often they are tried.
    """
    plain = ((name, value, "PLAINTEXT") for name, value in job.variables(key, config).items() if value)
    secret = ((name, value, "SECRETS_MANAGER") for name, value in job.secret_variables(config).items())
    parameters = {
        "projectName": config.project,
        "idempotencyToken": token,
        "sourceTypeOverride": "S3",
        "sourceLocationOverride": f"{config.bucket}/{key}",
        # Projects of other kinds of sources name a branch, or want artifacts: neither is ours.
        "artifactsOverride": {"type": "NO_ARTIFACTS"},
        "environmentVariablesOverride": [
            {"name": name, "value": value, "type": kind} for name, value, kind in (*plain, *secret)
        ],
        "timeoutInMinutesOverride": _minutes(config.timeout_s, _TIMEOUT_MINUTES),
        "queuedTimeoutInMinutesOverride": _minutes(config.timeout_s, _QUEUED_MINUTES),
        "privilegedModeOverride": True,  # the engine inside needs it
        "autoRetryLimitOverride": 0,  # a second build would find no context
        **_environment(job, config),
    }
    if not config.uses_own_buildspec:
        parameters["buildspecOverride"] = buildspec()
    if config.compute_type is not None:
        parameters["computeTypeOverride"] = config.compute_type
    return parameters


def _environment(job: BuildJob, config: CodeBuildConfig) -> dict[str, str]:
    """Return the environment for the image's architecture, so that what runs in the build needs no emulation."""
    image = config.arm64_image if job.is_arm64 else config.image
    if image == OF_THE_PROJECT:
        return {}
    return {
        "environmentTypeOverride": "ARM_CONTAINER" if job.is_arm64 else "LINUX_CONTAINER",
        "imageOverride": image,
        "imagePullCredentialsTypeOverride": "CODEBUILD" if image.startswith(_AMAZONS_IMAGES) else "SERVICE_ROLE",
    }


def _minutes(seconds: int, limits: tuple[int, int]) -> int:
    shortest, longest = limits
    return min(max(-(-seconds // 60), shortest), longest)
