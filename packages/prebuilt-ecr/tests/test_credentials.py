"""The credentials of whoever deploys: boto3's ordinary chain, as it is configured on people's machines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from prebuilt.ecr import ECRRegistry
from prebuilt.testing.amazon_ecr import ACCOUNT, REGION, AmazonECR
from prebuilt.testing.served import serving_http

ACTIONS = ("ecr:GetAuthorizationToken", "ecr:DescribeRepositories", "ecr:CreateRepository")
PUSHED = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/metaflow-prebuilt:v1"


@pytest.fixture
def configure(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return what writes the file of profiles, of which `work` is used; nothing else of AWS is in the environment."""
    del amazon

    def configure(profiles: str) -> None:
        (tmp_path / "config").write_text(profiles)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "work")

    return configure


def test_a_profile_takes_a_role(amazon: AmazonECR, configure: Callable[[str], None]) -> None:
    """A profile names a role and whose keys may take it; region and account are those of the role."""
    iam = amazon.client("iam")
    trust = {
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/deployer"},
                "Action": "sts:AssumeRole",
            }
        ]
    }
    role = iam.create_role(RoleName="baker", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ACTIONS, "Resource": "*"}]}
    iam.put_role_policy(RoleName="baker", PolicyName="bake", PolicyDocument=json.dumps(allowed))
    keys = amazon.user("sts:AssumeRole")
    configure(
        f"[profile work]\nrole_arn = {role}\nsource_profile = me\nregion = {REGION}\n[profile me]\n"
        + "".join(f"{name.lower()} = {value}\n" for name, value in keys.items())
    )
    assert ECRRegistry().credentials(PUSHED).username == "AWS"
    assert amazon.permissions.actions("user/deployer") == {"sts:AssumeRole"}
    assert amazon.permissions.actions("role/baker") == set(ACTIONS)


@pytest.fixture
def portal(amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give single sign-on that has keys for who shows the token of a session; return what it was asked, as it is asked."""
    keys, asked = amazon.user(*ACTIONS), list[str]()
    ends_at_ms = (datetime.now(timezone.utc) + timedelta(hours=1)).timestamp() * 1000

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Write nothing."""

        def do_GET(self) -> None:
            """Give the keys."""
            asked.append(self.path)
            is_known = self.headers["x-amz-sso_bearer_token"] == "session"
            given = {"accessKeyId": keys["AWS_ACCESS_KEY_ID"], "secretAccessKey": keys["AWS_SECRET_ACCESS_KEY"]}
            body = json.dumps(
                {"roleCredentials": {**given, "sessionToken": "", "expiration": int(ends_at_ms)}}
            ).encode()
            self.send_response(200 if is_known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving_http(Handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)
        yield asked


def test_a_profile_of_single_sign_on(
    amazon: AmazonECR,
    configure: Callable[[str], None],
    portal: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What `aws sso login` left is enough."""
    configure(
        f"[profile work]\nsso_session = work\nsso_account_id = {ACCOUNT}\nsso_role_name = deployer\nregion = {REGION}\n"
        f"[sso-session work]\nsso_region = {REGION}\nsso_start_url = https://example.com/start\n"
    )
    monkeypatch.setattr("botocore.tokens.SSOTokenProvider._SSO_TOKEN_CACHE_DIR", str(tmp_path))  # HOME was read before
    ends_at = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    token = {"accessToken": "session", "expiresAt": ends_at, "region": REGION, "startUrl": "https://example.com/start"}
    (tmp_path / f"{hashlib.sha1(b'work', usedforsecurity=False).hexdigest()}.json").write_text(json.dumps(token))
    assert ECRRegistry().credentials(PUSHED).username == "AWS"
    assert portal == [f"/federation/credentials?role_name=deployer&account_id={ACCOUNT}"]
    assert amazon.permissions.actions("user/deployer") == set(ACTIONS)
