"""What boto3 raises, read once for all packages that call AWS."""

from __future__ import annotations

import pytest

from prebuilt.core.errors import BuildError, SettingError
from prebuilt.oci.amazon_failure import AmazonFailure, amazon_failures


class BotoCoreError(Exception):
    """As botocore's: what is read is the name, since this package does not need botocore."""


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {
            "Error": {"Code": code, "Message": "as the test wants it"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


def like(name: str, *bases: str) -> Exception:
    """Return an error of botocore's class `name`."""
    parent: type[Exception] = BotoCoreError
    for each in (*bases, name):
        parent = type(each, (parent,), {})
    return parent("as boto3 says it")


class FailedError(BuildError):
    """Keeps the failure that it was made of."""

    def __init__(self, failure: AmazonFailure) -> None:
        self.failure = failure
        super().__init__("ask AWS", reason=failure.reason, remedy=failure.remedy)


def read(raised: Exception) -> AmazonFailure:
    """Return what is made of an error."""
    with (
        pytest.raises(FailedError) as caught,
        amazon_failures(FailedError, action="s3:PutObject", region_setting="THE_REGION", page="the page"),
    ):
        raise raised
    assert caught.value.__cause__ is raised
    return caught.value.failure


@pytest.mark.parametrize(
    ("code", "status", "kind", "words", "is_transient"),
    [
        ("AccessDenied", 403, "denied", "allow s3:PutObject to whoever deploys: see the page", False),
        ("ForbiddenException", 403, "denied", "sso_role_name", False),
        ("ExpiredToken", 400, "logged out", "session has expired: log in with `aws sso login`", False),
        ("UnrecognizedClientException", 400, "logged out", "that the account uses this region", False),
        ("SlowDown", 503, "throttled", "a higher rate of s3:PutObject", True),
        ("NoSuchBucket", 404, "missing", "", False),
        ("PermanentRedirect", 301, "elsewhere", "", False),
        ("InternalFailure", 500, "other", "", True),
        ("ValidationException", 400, "other", "", False),
    ],
)
def test_refusals(code: str, status: int, kind: str, words: str, *, is_transient: bool) -> None:
    """Amazon's word says what to make of an answer; the reason has it, and the message."""
    failure = read(ClientError(code, status))
    assert (failure.kind, failure.is_transient, failure.code, failure.status) == (kind, is_transient, code, status)
    assert failure.reason == f"{code}: as the test wants it"
    assert words in failure.remedy
    assert bool(words) is bool(failure.remedy)


def test_what_amazon_names_is_what_is_missing() -> None:
    """A call may be denied for another action than its own: KMS's, where something has a key."""
    denied = ClientError("AccessDenied", 403)
    denied.response["Error"]["Message"] = "User: x is not authorized to perform: kms:GenerateDataKey on resource: y"
    assert read(denied).remedy == "allow kms:GenerateDataKey to whoever deploys: see the page"


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("Not authorized to perform sts:AssumeRoleWithWebIdentity", "sts:AssumeRoleWithWebIdentity"),
        ("User: x is not authorized to perform: sts:AssumeRole on resource: y", "sts:AssumeRole"),
    ],
)
def test_role_that_may_not_be_taken(message: str, action: str) -> None:
    """The call itself was never made: what has to change is the role's trust policy, and no permission of the call."""
    denied = ClientError("AccessDenied", 403)
    denied.response["Error"]["Message"] = message
    failure = read(denied)
    assert failure.kind == "denied"
    assert failure.remedy == (
        f"let whoever deploys take the role of the AWS configuration: its trust policy has to allow {action}"
    )


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (like("UnauthorizedSSOTokenError", "SSOError"), "logged out", "session has expired"),
        (like("LoginRefreshRequired", "LoginError"), "logged out", "aws login"),
        (like("NoCredentialsError"), "logged out", "aws sso login"),
        (like("EndpointConnectionError", "ConnectionError"), "unreachable", "check THE_REGION, the network"),
        (like("ReadTimeoutError", "HTTPClientError"), "unreachable", "proxy"),
        (like("ParamValidationError"), "other", ""),
    ],
)
def test_no_answer(error: Exception, kind: str, words: str) -> None:
    """What boto3 itself says is told apart: no credentials, no network, and what nobody expected, with its name."""
    failure = read(error)
    assert (failure.kind, failure.code, failure.status) == (kind, "", None)
    assert failure.is_transient is (kind == "unreachable")
    assert words in failure.remedy
    assert "as boto3 says it" in failure.reason
    assert (type(error).__name__ in failure.reason) is (kind == "other")


@pytest.mark.parametrize(
    ("name", "setting"), [("ProfileNotFound", "AWS_PROFILE"), ("NoRegionError", "THE_REGION or AWS_DEFAULT_REGION")]
)
def test_settings(name: str, setting: str) -> None:
    """A profile or a region that is not there is a mistake in the settings."""
    with (
        pytest.raises(SettingError, match=setting),
        amazon_failures(FailedError, action="", region_setting="THE_REGION", page=""),
    ):
        raise like(name)


@pytest.mark.parametrize("error", [ConnectionError("of somebody else"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    """What is not boto3's is not touched."""
    with (
        pytest.raises(type(error)) as caught,
        amazon_failures(FailedError, action="", region_setting="", page=""),
    ):
        raise error
    assert caught.value is error
