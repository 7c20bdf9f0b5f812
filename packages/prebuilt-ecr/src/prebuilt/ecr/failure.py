"""Errors out of what boto3 raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prebuilt.core.errors import (
    ForbiddenError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    UnauthorizedError,
)
from prebuilt.ecr.config import CREATE, REGION
from prebuilt.oci.amazon_failure import AmazonFailure, Kind, amazon_failures

_ERRORS: dict[Kind, type[RegistryError]] = {
    "denied": ForbiddenError,
    "logged out": UnauthorizedError,
    "throttled": RateLimitedError,
    "unreachable": RegistryUnreachableError,
}
_REMEDIES = {
    "LimitExceededException": "ask AWS for a higher quota of ECR, or delete what is not used",
    "KmsException": "check METAFLOW_PREBUILT_ECR_KMS_KEY, and that its policy lets you and ECR use it",
    "RepositoryNotFoundException": f"create it, or let {CREATE} be on",
}


@contextmanager
def aws_errors(tried: str, *, at: str, action: str) -> Iterator[None]:
    """Turn what boto3 raises in the body into errors of ours that say what to do.

    Args:
        tried: What was being done, as an infinitive.
        at: The account, region or repository.
        action: The IAM action that it needs.

    Raises:
        UnauthorizedError: There are no credentials, or none that are good now.
        ForbiddenError: The action is not allowed; it is named.
        RateLimitedError: AWS throttles, also after boto3's own retries.
        RegistryUnreachableError: No answer.
        SettingError: The profile or the region is not there.
        RegistryError: Anything else that AWS answered.
    """

    def to_error(failure: AmazonFailure) -> RegistryError:
        return _ERRORS.get(failure.kind, RegistryError)(
            tried,
            at=at,
            reason=failure.reason,
            remedy=failure.remedy or _REMEDIES.get(failure.code, ""),
            status=failure.status,
            code=failure.code,
        )

    with amazon_failures(to_error, action=action, region_setting=REGION, page="docs/how-to/ecr.md"):
        yield
