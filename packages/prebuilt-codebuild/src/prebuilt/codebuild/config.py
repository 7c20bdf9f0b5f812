"""Settings of the builder ``codebuild``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.build_cache import BESIDE_IMAGES, cache_setting
from prebuilt.oci.reference import parse_reference

BUCKET, PROJECT = "METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET", "METAFLOW_PREBUILT_CODEBUILD_PROJECT"
REGION, TIMEOUT = "METAFLOW_PREBUILT_CODEBUILD_REGION", "METAFLOW_PREBUILT_CODEBUILD_TIMEOUT"
REGISTRY_SECRET = "METAFLOW_PREBUILT_CODEBUILD_REGISTRY_SECRET"  # noqa: S105 - a setting's name
COMPUTE_TYPE, BUILDKIT_IMAGE = "METAFLOW_PREBUILT_CODEBUILD_COMPUTE_TYPE", "METAFLOW_PREBUILT_CODEBUILD_BUILDKIT_IMAGE"
IMAGES = "METAFLOW_PREBUILT_CODEBUILD_IMAGE and …_ARM64_IMAGE"

OF_THE_PROJECT: Literal["project"] = "project"
"""What is set up in the project is left as it is."""

_TIMEOUT_S = 7200  # far longer than any environment takes: it is there for builds that hang
_WHY = "the builder codebuild needs it"
_DEFAULT_BUILDKIT = "moby/buildkit:buildx-stable-1"

# Of Amazon's own images, which have Docker, buildx and the AWS command line.
# Source: https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-available.html
_X86_IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
_ARM_IMAGE = "aws/codebuild/amazonlinux-aarch64-standard:3.0"

_REGION_FORM = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]+")
# Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET_FORM = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Source: https://docs.aws.amazon.com/codebuild/latest/APIReference/API_CreateProject.html, name
_PROJECT_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,254}")
_PROJECT_ARN = re.compile(r"arn:[a-z-]+:codebuild:[a-z0-9-]+:([0-9]{12}):project/([^/:]+)")
_PREFIX_FORM = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBuildConfig:
    """Where builds run, and how.

    Attributes:
        bucket: Of build contexts (``METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET``).
        prefix: What their keys begin with (``METAFLOW_PREBUILT_CODEBUILD_S3_PREFIX``).
        project: Its name (``METAFLOW_PREBUILT_CODEBUILD_PROJECT``).
        region: Of both (``METAFLOW_PREBUILT_CODEBUILD_REGION``); None for that of the registry, or else boto3's.
        timeout_s: The longest that one build may take, with its wait in the queue (``METAFLOW_PREBUILT_CODEBUILD_TIMEOUT``).
        compute_type: None for the project's (``METAFLOW_PREBUILT_CODEBUILD_COMPUTE_TYPE``).
        image: What builds run in, but for arm64 (``METAFLOW_PREBUILT_CODEBUILD_IMAGE``); `OF_THE_PROJECT` for its own environment.
        arm64_image: The same for arm64 (``METAFLOW_PREBUILT_CODEBUILD_ARM64_IMAGE``).
        buildkit_image: Of the BuildKit that builds (``METAFLOW_PREBUILT_CODEBUILD_BUILDKIT_IMAGE``).
        uses_own_buildspec: Whether the project's own buildspec is used rather than ours (``METAFLOW_PREBUILT_CODEBUILD_BUILDSPEC``).
        cache: Where builds share what they have made (``METAFLOW_PREBUILT_CODEBUILD_CACHE``): `BESIDE_IMAGES`, ``host/repository``
            with or without a tag, or None for no such cache.
        registry_secret: Name or ARN of the secret with the login for registries that are not Amazon ECR
            (``METAFLOW_PREBUILT_CODEBUILD_REGISTRY_SECRET``).
    """

    bucket: str
    project: str
    prefix: str = "metaflow-prebuilt"
    region: str | None = None
    timeout_s: int = _TIMEOUT_S
    compute_type: str | None = None
    image: str = _X86_IMAGE
    arm64_image: str = _ARM_IMAGE
    buildkit_image: str = _DEFAULT_BUILDKIT
    uses_own_buildspec: bool = False
    cache: str | None = BESIDE_IMAGES
    registry_secret: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> CodeBuildConfig:
        """Read the settings.

        Raises:
            SettingError: Bucket or project is not set, or something is malformed.
        """
        region = settings.get("PREBUILT_CODEBUILD_REGION")
        buildspec = settings.choice("PREBUILT_CODEBUILD_BUILDSPEC", ("shipped", OF_THE_PROJECT), default="shipped")
        return cls(
            bucket=_checked(BUCKET, settings.require("PREBUILT_CODEBUILD_S3_BUCKET", why=_WHY), _BUCKET_FORM),
            project=_project(settings.require("PREBUILT_CODEBUILD_PROJECT", why=_WHY)),
            prefix=_prefix(settings),
            region=region and _checked(REGION, region, _REGION_FORM),
            timeout_s=settings.positive_int("PREBUILT_CODEBUILD_TIMEOUT", default=_TIMEOUT_S),
            compute_type=settings.get("PREBUILT_CODEBUILD_COMPUTE_TYPE"),
            image=settings.get("PREBUILT_CODEBUILD_IMAGE") or _X86_IMAGE,
            arm64_image=settings.get("PREBUILT_CODEBUILD_ARM64_IMAGE") or _ARM_IMAGE,
            buildkit_image=_buildkit_image(settings),
            uses_own_buildspec=buildspec == OF_THE_PROJECT,
            cache=cache_setting(settings, "PREBUILT_CODEBUILD_CACHE", default=BESIDE_IMAGES),
            registry_secret=settings.get("PREBUILT_CODEBUILD_REGISTRY_SECRET"),
        )


def _checked(name: str, value: str, form: re.Pattern[str]) -> str:
    if not form.fullmatch(value):
        what = {BUCKET: "a bucket's name", PROJECT: "a project's name", REGION: "a region, such as eu-west-1"}
        raise SettingError(name, reason=f"{value!r} is not {what[name]}", remedy="mend it")
    return value


def _project(value: str) -> str:
    """Return the name of a project.

    An ARN would name one of another account: whoever it is shared with sees it, and may not build with it.

    Source: https://docs.aws.amazon.com/codebuild/latest/userguide/project-sharing.html
    """
    arn = _PROJECT_ARN.fullmatch(value)
    if arn:
        reason = f"{value!r} is an ARN, and builds of a project of another account cannot be started"
        remedy = f"set it to the project's name, {arn[2]}, and deploy with credentials of the account {arn[1]}"
        raise SettingError(PROJECT, reason=reason, remedy=remedy)
    return _checked(PROJECT, value, _PROJECT_FORM)


def _buildkit_image(settings: Settings) -> str:
    value = settings.get("PREBUILT_CODEBUILD_BUILDKIT_IMAGE") or _DEFAULT_BUILDKIT
    try:
        parse_reference(value)
    except InvalidValueError as error:
        raise SettingError(BUILDKIT_IMAGE, reason=f"{value!r} is no image: {error.reason}", remedy="mend it") from error
    return value


def _prefix(settings: Settings) -> str:
    value = (settings.get("PREBUILT_CODEBUILD_S3_PREFIX") or "metaflow-prebuilt").strip("/")
    if not _PREFIX_FORM.fullmatch(value):
        reason = f"{value!r} cannot begin a key: use letters, digits, - _ . and / between them"
        raise SettingError("METAFLOW_PREBUILT_CODEBUILD_S3_PREFIX", reason=reason)
    return value
