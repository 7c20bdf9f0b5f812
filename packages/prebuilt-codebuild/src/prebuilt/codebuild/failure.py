"""Errors out of what boto3 raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prebuilt.codebuild.config import BUCKET, COMPUTE_TYPE, IMAGES, PROJECT, REGION
from prebuilt.core.errors import BuildError
from prebuilt.core.known_causes import find_remedy, known_cause
from prebuilt.oci.amazon_failure import AmazonFailure, amazon_failures

PAGE = "docs/how-to/codebuild.md"

TRUST = f"let codebuild.amazonaws.com take the role of the project, by its trust policy; {PAGE} has a template"
"""What to do where CodeBuild may not take the project's role."""

# Of a project that is there, and cannot run such builds. What is asked for is in each call; the rest is the project's.
_UNFIT = (
    known_cause(r"sts:AssumeRole", TRUST),
    known_cause(
        r"lambda|privileged",
        f"set {PROJECT} to a project whose compute can run Docker (AWS Lambda cannot), or {COMPUTE_TYPE} to "
        "BUILD_GENERAL1_MEDIUM",
    ),
    known_cause(
        r"compute.?type|environment.?type|fleet|image",
        f"set {COMPUTE_TYPE} to one that the environment has in this region, or {IMAGES} to project for the project's own "
        "environment, which a fleet needs",
    ),
    known_cause(r"source", f"take the source and its version out of the project, or set {PROJECT} to one without"),
)


class AmazonError(BuildError):
    """A call to AWS failed.

    Attributes:
        failure: What AWS said, or that it did not answer.
    """

    def __init__(self, tried: str, *, at: str, failure: AmazonFailure, remedy: str) -> None:
        """Keep the failure beside the message."""
        self.failure = failure
        super().__init__(tried, at=at, reason=failure.reason, remedy=remedy)


@contextmanager
def aws_errors(tried: str, *, at: str, action: str) -> Iterator[None]:
    """Turn what boto3 raises in the body into errors of ours that say what to do.

    Args:
        tried: What was being done, as an infinitive.
        at: The bucket, the project, the build.
        action: The IAM action that it needs.

    Raises:
        AmazonError: AWS refused, or could not be asked.
        SettingError: The profile or the region is not there.
    """

    def to_error(failure: AmazonFailure) -> AmazonError:
        return AmazonError(tried, at=at, failure=failure, remedy=failure.remedy or _remedy(failure, action))

    with amazon_failures(to_error, action=action, region_setting=REGION, page=PAGE):
        yield


def _remedy(failure: AmazonFailure, action: str) -> str:
    if failure.kind == "missing":
        what, setting = ("bucket", BUCKET) if action.startswith("s3:") else ("project", PROJECT)
        return f"create the {what} ({PAGE} has a template), or correct {setting} or {REGION}"
    if failure.kind == "elsewhere":
        return f"the bucket is in another region than the builds: correct {BUCKET} or {REGION}"
    if failure.code == "AccountLimitExceededException":
        return "wait until other builds have ended, or ask AWS for more concurrent builds of CodeBuild"
    if failure.code == "InvalidInputException":
        return find_remedy(_UNFIT, failure.reason, ())
    return ""
