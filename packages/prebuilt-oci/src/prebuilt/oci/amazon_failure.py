"""Why AWS did not do what it was asked for: one reading of what boto3 raises, for all packages that call it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from prebuilt.core.errors import PrebuiltError, SettingError

Kind = Literal["denied", "logged out", "throttled", "missing", "elsewhere", "unreachable", "other"]

# Source: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/CommonErrors.html, the same page of CodeBuild,
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what the services answer in fact
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AllAccessDisabled"})
_STALE = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_UNKNOWN = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch"}
    | {"MissingAuthenticationToken", "IncompleteSignature", "AuthFailure", "OptInRequired", "InvalidAccessKeyId"}
)
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"}
    | {"SlowDown", "RequestThrottled", "RequestThrottledException"}
)
_MISSING = frozenset(
    {"ResourceNotFoundException", "RepositoryNotFoundException", "NoSuchBucket", "NoSuchKey", "NoSuchUpload"}
)
# Of single sign-on alone: none of the services that we call has it.
_NOT_YOURS = frozenset({"ForbiddenException"})
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)
# A call may need more than its own action: what has a key of its own needs actions of KMS, and a role has to be taken first. Web
# identities are refused one in a sentence of its own: "Not authorized to perform sts:AssumeRoleWithWebIdentity".
_NAMED_ACTION = re.compile(r"[Nn]ot authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)")
_OF_ROLES = "sts:"
_LOG_IN = (
    "log in with `aws sso login` or `aws login`, or give boto3 credentials in another way (AWS_PROFILE, a role, environment"
    " variables)"
)
_EXPIRED = f"your AWS session has expired: {_LOG_IN}"
_ASSIGN = (
    "AWS single sign-on does not give you the role of your profile: check its sso_account_id and its sso_role_name"
)
_ENDPOINT = "write it, or the endpoint_url of the AWS configuration, as https://HOST, or leave it out"
_CHECK = "check the AWS credentials, this machine's clock, and that the account uses this region"


@dataclass(frozen=True, slots=True, kw_only=True)
class AmazonFailure:
    """Why a call failed.

    Attributes:
        kind: What to make of it. ``elsewhere`` is in another region than was asked, ``unreachable`` is no answer.
        reason: What AWS said, or boto3.
        remedy: What helps, whichever service it was; empty where that is for the service's package to know.
        code: Amazon's own word; empty where no answer came.
        status: Of HTTP; None where no answer came.
    """

    kind: Kind
    reason: str
    remedy: str = ""
    code: str = ""
    status: int | None = None

    @property
    def is_transient(self) -> bool:
        """Whether the same call may work in a while: throttled, no answer, a server's fault."""
        return self.kind in {"throttled", "unreachable"} or (self.status or 0) >= 500  # noqa: PLR2004 - HTTP's


@contextmanager
def amazon_failures(
    to_error: Callable[[AmazonFailure], PrebuiltError], *, action: str, region_setting: str, page: str
) -> Iterator[None]:
    """Turn what boto3 raises in the body into errors of ours.

    Args:
        to_error: Makes the error that is raised.
        action: The IAM action that the body needs; what AWS names instead is named.
        region_setting: What sets the region.
        page: Of the documentation: what whoever deploys has to be allowed.

    Raises:
        PrebuiltError: What `to_error` returned.
        SettingError: The profile or the region is not there, or an endpoint is no URL.
    """
    try:
        yield
    except Exception as error:
        kinds = {each.__name__ for each in type(error).__mro__}  # by name: this package does not need boto3
        if "ClientError" in kinds and hasattr(error, "response"):
            raise to_error(_refused(error.response, action, page)) from error
        if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
            raise SettingError("AWS_ENDPOINT_URL", reason=str(error), remedy=_ENDPOINT) from error
        if "BotoCoreError" not in kinds:
            raise
        _check_settings(error, kinds, region_setting)
        raise to_error(_not_asked(error, kinds, region_setting)) from error


def _refused(response: dict[str, Any], action: str, page: str) -> AmazonFailure:
    code = str(response.get("Error", {}).get("Code", ""))
    said = f"{code}: {response.get('Error', {}).get('Message', '')}".strip(": ")
    named = _NAMED_ACTION.search(said)
    kind, remedy = _verdict(code, named[1] if named else action, page)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return AmazonFailure(kind=kind, reason=said, remedy=remedy, code=code, status=status)


def _verdict(code: str, action: str, page: str) -> tuple[Kind, str]:
    known: tuple[tuple[frozenset[str], Kind, str], ...] = (
        (_DENIED, "denied", _allow_remedy(action, page)),
        (_NOT_YOURS, "denied", _ASSIGN),
        (_STALE, "logged out", _EXPIRED),
        (_UNKNOWN, "logged out", _CHECK),
        (_THROTTLED, "throttled", f"wait a while, or ask AWS for a higher rate of {action}"),
        (_MISSING, "missing", ""),
        (_ELSEWHERE, "elsewhere", ""),
    )
    return next(((kind, remedy) for codes, kind, remedy in known if code in codes), ("other", ""))


def _allow_remedy(action: str, page: str) -> str:
    if action.startswith(_OF_ROLES):
        return f"let whoever deploys take the role of the AWS configuration: its trust policy has to allow {action}"
    return f"allow {action} to whoever deploys: see {page}"


def _check_settings(error: Exception, kinds: set[str], region_setting: str) -> None:
    if "ProfileNotFound" in kinds:
        remedy = "name a profile of your AWS configuration"
        raise SettingError("AWS_PROFILE", reason=str(error), remedy=remedy) from error
    if kinds & {"NoRegionError", "InvalidRegionError"}:
        remedy = f"set {region_setting} or AWS_DEFAULT_REGION"
        raise SettingError(region_setting, reason=str(error), remedy=remedy) from error


def _not_asked(error: Exception, kinds: set[str], region_setting: str) -> AmazonFailure:
    reason = str(error)
    if kinds & {"SSOError", "SSOTokenLoadError", "TokenRetrievalError", "LoginRefreshRequired", "LoginTokenLoadError"}:
        return AmazonFailure(kind="logged out", reason=reason, remedy=_EXPIRED)
    if kinds & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return AmazonFailure(kind="logged out", reason=reason, remedy=_LOG_IN)
    if kinds & {"HTTPClientError", "ConnectionError"}:
        remedy = f"check {region_setting}, the network and the proxy settings"
        return AmazonFailure(kind="unreachable", reason=reason, remedy=remedy)
    return AmazonFailure(kind="other", reason=f"{type(error).__name__}: {reason}")
