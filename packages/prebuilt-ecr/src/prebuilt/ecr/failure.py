"""Errors out of what boto3 raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prebuilt.core.errors import (
    ForbiddenError,
    PrebuiltError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    SettingError,
    UnauthorizedError,
)
from prebuilt.ecr.config import CREATE, REGION

# Source: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/CommonErrors.html, and what the API answers in fact
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_STALE = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch"}
    | {"MissingAuthenticationToken", "IncompleteSignature", "AuthFailure", "OptInRequired"}
)
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"})
_REMEDIES = {
    "LimitExceededException": "ask AWS for a higher quota of ECR, or delete what is not used",
    "KmsException": "check METAFLOW_PREBUILT_ECR_KMS_KEY, and that its policy lets you and ECR use it",
    "RepositoryNotFoundException": f"create it, or let {CREATE} be on",
}
_LOG_IN = (
    "log in with `aws sso login`, or give boto3 credentials in another way (AWS_PROFILE, a role, environment variables)"
)


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
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refused(tried, at, action, error.response) from error
    except BotoCoreError as error:
        raise _not_asked(tried, at, error) from error


def _refused(tried: str, at: str, action: str, response: dict[str, Any]) -> RegistryError:
    code = str(response.get("Error", {}).get("Code", ""))
    said = f"{code}: {response.get('Error', {}).get('Message', '')}".strip(": ")
    kind, remedy = _verdict(code, action)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return kind(tried, at=at, reason=said, remedy=remedy, status=status, code=code)


def _verdict(code: str, action: str) -> tuple[type[RegistryError], str]:
    if code in _DENIED:
        return ForbiddenError, f"allow {action} to whoever deploys; docs/how-to/ecr.md has a policy"
    if code in _STALE:
        return UnauthorizedError, f"your AWS session has expired: {_LOG_IN}"
    if code in _UNKNOWN:
        return UnauthorizedError, "check the AWS credentials, their region and this machine's clock"
    if code in _THROTTLED:
        return RateLimitedError, f"wait a while, or ask AWS for a higher rate of {action}"
    return RegistryError, _REMEDIES.get(code, "")


def _not_asked(tried: str, at: str, error: Exception) -> PrebuiltError:
    from botocore import exceptions as aws

    reason = str(error)
    if isinstance(error, aws.ProfileNotFound):
        return SettingError("AWS_PROFILE", reason=reason, remedy="name a profile of your AWS configuration")
    if isinstance(error, (aws.NoRegionError, aws.InvalidRegionError)):
        return SettingError(REGION, reason=reason, remedy=f"set {REGION} or AWS_DEFAULT_REGION")
    if isinstance(error, (aws.SSOError, aws.SSOTokenLoadError, aws.TokenRetrievalError)):
        return UnauthorizedError(tried, at=at, reason=reason, remedy=f"your AWS session has expired: {_LOG_IN}")
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError)):
        return UnauthorizedError(tried, at=at, reason=reason, remedy=_LOG_IN)
    if isinstance(error, (aws.HTTPClientError, aws.ConnectionError)):
        remedy = f"check {REGION}, the network and the proxy settings"
        return RegistryUnreachableError(tried, at=at, reason=reason, remedy=remedy)
    return RegistryError(tried, at=at, reason=f"{type(error).__name__}: {reason}")
