"""What goes wrong with AWS, by name: each error says what to do, and each denial names its IAM action."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from prebuilt.core.errors import (
    ForbiddenError,
    PrebuiltError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    SettingError,
    UnauthorizedError,
)
from prebuilt.ecr import ECRRegistry, api
from prebuilt.testing.amazon_ecr import ACCOUNT, REGION, AmazonECR
from prebuilt.testing.served import serving_http

PUSHED = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/metaflow-prebuilt:v1"
ALL = {"ecr:GetAuthorizationToken", "ecr:DescribeRepositories", "ecr:CreateRepository"}


@pytest.mark.parametrize("action", sorted(ALL))
def test_each_missing_permission_is_named(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Whoever deploys is told which action to allow; nothing else is needed for the API."""
    for name, value in amazon.user(*(ALL - {action})).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ForbiddenError) as caught:
        ECRRegistry().credentials(PUSHED)
    assert f"allow {action} " in caught.value.remedy
    assert REGION in caught.value.at


def test_three_permissions_are_enough(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the permissions table of the documentation says about the API is all."""
    for name, value in amazon.user(*ALL).items():
        monkeypatch.setenv(name, value)
    assert ECRRegistry().credentials(PUSHED).username == "AWS"


def test_who_may_not_make_repositories_needs_one_permission(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
    """With METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY off, a password is all that is asked for."""
    monkeypatch.setenv("METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY", "off")
    for name, value in amazon.user("ecr:GetAuthorizationToken").items():
        monkeypatch.setenv(name, value)
    assert ECRRegistry().credentials(PUSHED).username == "AWS"


def test_no_credentials(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where boto3 looks."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UnauthorizedError, match="aws sso login"):
        ECRRegistry().image_exists(PUSHED)
    assert amazon.registry.count() <= 1  # the challenge


def test_expired_sso_session(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profile whose single sign-on has ended says how to log in."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text(
        "[profile work]\nsso_session = work\nsso_account_id = 123456789012\nsso_role_name = deployer\nregion = eu-west-1\n"
        "[sso-session work]\nsso_region = eu-west-1\nsso_start_url = https://example.com/start\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(UnauthorizedError, match=r"session has expired.*aws sso login"):
        ECRRegistry().credentials(PUSHED)
    assert amazon.passwords.good == set()


@pytest.mark.usefixtures("amazon")
def test_unknown_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile is named."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingError, match=r"AWS_PROFILE.*nobody"):
        ECRRegistry().credentials(PUSHED)


@pytest.mark.usefixtures("amazon")
def test_an_endpoint_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown, with how to write one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:5000")
    with pytest.raises(SettingError, match=r"AWS_ENDPOINT_URL.*localhost:5000; write it"):
        ECRRegistry().credentials(PUSHED)


@pytest.mark.usefixtures("amazon")
def test_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to name one are named."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_ECR_REGION or AWS_DEFAULT_REGION"):
        _ = ECRRegistry().repository


@pytest.mark.usefixtures("amazon")
def test_an_api_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody listens, which is what a region that does not exist comes down to, is no absence."""
    monkeypatch.setattr(api, "_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RegistryUnreachableError, match="METAFLOW_PREBUILT_ECR_REGION, the network"):
        ECRRegistry().resolve(PUSHED)


@dataclass
class Api:
    """An API that gives prepared answers, in Amazon's form: a status and JSON; the last one again and again."""

    answers: list[tuple[int, dict[str, object]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def refuse(self, code: str, times: int = 1) -> None:
        """Prepare refusals."""
        self.answers += [(400, {"__type": code, "message": "as the test wants it"})] * times

    def answer(self, **data: object) -> None:
        """Prepare an answer."""
        self.answers.append((200, data))


@pytest.fixture
def prepared(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Give such an API; the process finds it."""
    prepared = Api()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Write nothing."""

        def do_POST(self) -> None:
            """Give the next answer."""
            self.rfile.read(int(self.headers["Content-Length"]))
            prepared.asked.append(self.headers["X-Amz-Target"].rpartition(".")[2])
            status, data = prepared.answers.pop(0) if len(prepared.answers) > 1 else prepared.answers[0]
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving_http(Handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield prepared


TOKEN = {
    "authorizationToken": "QVdTOnNlY3JldA==",
    "expiresAt": 4102444800,
    "proxyEndpoint": f"https://{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com",
}


def test_throttling_passes(prepared: Api) -> None:
    """A request that AWS throttles is sent again."""
    prepared.refuse("ThrottlingException", times=2)
    prepared.answer(authorizationData=[TOKEN])
    assert ECRRegistry()._authorizations().secret == "secret"
    assert prepared.asked == ["GetAuthorizationToken"] * 3


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("ThrottlingException", RateLimitedError, "higher rate of ecr:GetAuthorizationToken"),
        ("ExpiredTokenException", UnauthorizedError, "aws sso login"),
        ("UnrecognizedClientException", UnauthorizedError, "check the AWS credentials"),
        ("InvalidSignatureException", UnauthorizedError, "this machine's clock"),
        ("AccessDeniedException", ForbiddenError, "allow ecr:GetAuthorizationToken"),
        ("ServerException", RegistryError, "as the test wants it"),
    ],
)
def test_a_refusal_says_what_to_do(
    prepared: Api, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[PrebuiltError], words: str
) -> None:
    """The error has AWS's code and its message, and the remedy for it."""
    monkeypatch.setattr(api, "_ATTEMPTS", 1)
    prepared.refuse(code)
    with pytest.raises(kind, match=words) as caught:
        ECRRegistry().resolve(PUSHED)
    assert type(caught.value) is kind
    assert code in caught.value.reason


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("LimitExceededException", "higher quota"),
        ("KmsException", "METAFLOW_PREBUILT_ECR_KMS_KEY"),
        ("InvalidParameterException", "create the repository metaflow-prebuilt"),
    ],
)
def test_a_repository_that_cannot_be_made(
    prepared: Api, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    """Quota, key and parameters are told apart."""
    monkeypatch.setattr(api, "_ATTEMPTS", 1)
    prepared.answer(authorizationData=[TOKEN])
    prepared.refuse("RepositoryNotFoundException")
    prepared.refuse(code)
    with pytest.raises(RegistryError, match=words):
        ECRRegistry().credentials(PUSHED)
    assert prepared.asked == ["GetAuthorizationToken", "DescribeRepositories", "CreateRepository"]


@pytest.mark.parametrize("token", ["!!", "", "bm8gY29sb24=\0"])
def test_an_answer_in_another_form(prepared: Api, token: str) -> None:
    """Something that is not ECR, behind a proxy for one, is an error that shows no part of a password."""
    prepared.answer(authorizationData=[{**TOKEN, "authorizationToken": token}] if token else [])
    with pytest.raises(RegistryError, match="not in the documented form"):
        ECRRegistry().resolve(PUSHED)
