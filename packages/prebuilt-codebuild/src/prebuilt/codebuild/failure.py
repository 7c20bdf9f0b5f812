"""Errors out of what boto3 raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prebuilt.codebuild.config import BUCKET, PROJECT, REGION
from prebuilt.core.errors import BuildError, PrebuiltError, SettingError

# Source: https://docs.aws.amazon.com/codebuild/latest/APIReference/CommonErrors.html,
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what the services answer in fact
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AllAccessDisabled"})
THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"}
    | {"SlowDown", "RequestThrottled", "RequestThrottledException"}
)
MISSING = frozenset({"ResourceNotFoundException", "NoSuchBucket", "NoSuchKey", "NoSuchUpload"})
_STALE = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_UNKNOWN = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch"}
    | {"MissingAuthenticationToken", "IncompleteSignature", "AuthFailure", "OptInRequired", "InvalidAccessKeyId"}
)
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)
_FULL = frozenset({"AccountLimitExceededException"})
_LOG_IN = (
    "log in with `aws sso login`, or give boto3 credentials in another way (AWS_PROFILE, a role, environment variables)"
)


class AmazonError(BuildError):
    """A call to AWS failed.

    Attributes:
        code: Amazon's own word for it; empty where no answer came.
        is_transient: Whether the same call may work in a while: throttled, no answer, a server's fault.
    """

    def __init__(
        self, tried: str, *, at: str = "", reason: str, remedy: str = "", code: str = "", is_transient: bool = False
    ) -> None:
        """Keep both beside the message."""
        self.code, self.is_transient = code, is_transient
        super().__init__(tried, at=at, reason=reason, remedy=remedy)


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
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refused(tried, at, action, error.response) from error
    except BotoCoreError as error:
        raise _not_asked(tried, at, error) from error


def _refused(tried: str, at: str, action: str, response: dict[str, Any]) -> AmazonError:
    code = str(response.get("Error", {}).get("Code", ""))
    said = f"{code}: {response.get('Error', {}).get('Message', '')}".strip(": ")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    is_transient = code in THROTTLED or status >= 500  # noqa: PLR2004 - where HTTP's server errors begin
    return AmazonError(tried, at=at, reason=said, remedy=_remedy(code, action), code=code, is_transient=is_transient)


def _remedy(code: str, action: str) -> str:
    what, setting = ("bucket", BUCKET) if action.startswith("s3:") else ("project", PROJECT)
    remedies = (
        (DENIED, f"allow {action} to whoever deploys; docs/how-to/codebuild.md has a policy"),
        (_STALE, f"your AWS session has expired: {_LOG_IN}"),
        (_UNKNOWN, "check the AWS credentials, their region and this machine's clock"),
        (THROTTLED, f"wait a while, or ask AWS for a higher rate of {action}"),
        (_FULL, "wait until other builds have ended, or ask AWS for more concurrent builds of CodeBuild"),
        (_ELSEWHERE, f"the bucket is in another region than the builds: correct {BUCKET} or {REGION}"),
        (MISSING, f"create the {what} (docs/how-to/codebuild.md has a template), or correct {setting} or {REGION}"),
    )
    return next((remedy for codes, remedy in remedies if code in codes), "")


def _not_asked(tried: str, at: str, error: Exception) -> PrebuiltError:
    from botocore import exceptions as aws

    reason = str(error)
    if isinstance(error, aws.ProfileNotFound):
        return SettingError("AWS_PROFILE", reason=reason, remedy="name a profile of your AWS configuration")
    if isinstance(error, (aws.NoRegionError, aws.InvalidRegionError)):
        return SettingError(REGION, reason=reason, remedy=f"set {REGION} or AWS_DEFAULT_REGION")
    if isinstance(error, (aws.SSOError, aws.SSOTokenLoadError, aws.TokenRetrievalError)):
        return AmazonError(tried, at=at, reason=reason, remedy=f"your AWS session has expired: {_LOG_IN}")
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError)):
        return AmazonError(tried, at=at, reason=reason, remedy=_LOG_IN)
    if isinstance(error, (aws.HTTPClientError, aws.ConnectionError)):
        remedy = f"check {REGION}, the network and the proxy settings"
        return AmazonError(tried, at=at, reason=reason, remedy=remedy, is_transient=True)
    return AmazonError(tried, at=at, reason=f"{type(error).__name__}: {reason}")
