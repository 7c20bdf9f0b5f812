"""Google's APIs on loopback, as far as a registry client needs them: tokens for everybody, and repositories of Artifact Registry."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from prebuilt.testing.served import serving_http

PROJECT, LOCATION = "acme-ml", "europe-west1"
ROBOT = f"robot@{PROJECT}.iam.gserviceaccount.com"
DEPLOYER = f"deployer@{PROJECT}.iam.gserviceaccount.com"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_REPOSITORY = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+/repositories)(?:/([^/]+))?")
_AUDIENCE = "https://oauth2.googleapis.com/token"  # wherever the request is sent to
_PAYING = "serviceusage.services.use"
_MAY_NOT_PAY = (
    "Caller does not have required permission to use project {}. Grant the caller the roles/serviceusage.serviceUsageConsumer"
    f" role, or a custom role with the {_PAYING} permission."
)
_FLAVOR = {"Metadata-Flavor": "Google"}


@dataclass(kw_only=True)
class GoogleApi:
    """What Google knows, and what it was asked.

    Attributes:
        key: Public key of the service account :data:`ROBOT`, PEM.
        tokens: Those that are good.
        refresh_tokens: Of users who are logged in.
        repositories: By their resource names.
        objects: What Cloud Storage has, by ``bucket/name``.
        denied: Permissions that nobody has.
        checked: Permissions that something has needed.
        lifetime_s: How long a token is said to be good for. Nothing ends by itself.
        takes: How often an operation is looked at before it has ended.
        operation_error: What it ends with, if not well.
        asked: ``METHOD path`` of each request, in order.
        quota_projects: Whom requests to Artifact Registry were counted for.
        refusals: Status and body of the next answers of Artifact Registry.
        issue: Answers as the token service of a registry, below ``/v2/token``.
    """

    key: bytes = b""
    tokens: set[str] = field(default_factory=set)
    refresh_tokens: set[str] = field(default_factory=set)
    repositories: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    checked: set[str] = field(default_factory=set)
    lifetime_s: int = 3600
    takes: int = 0
    operation_error: Mapping[str, Any] | None = None
    asked: list[str] = field(default_factory=list)
    quota_projects: list[str] = field(default_factory=list)
    refusals: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    url: str = ""
    issue: Callable[[str | None, Mapping[str, list[str]]], tuple[int, Mapping[str, object]]] | None = None

    def allows(self, permission: str) -> bool:
        """Return whether whoever asks has `permission`, which is noted as needed."""
        self.checked.add(permission)
        return permission not in self.denied

    def hand_out(self) -> str:
        """Return a new token."""
        token = f"ya29.{secrets.token_hex(32)}"
        self.tokens.add(token)
        return token

    def count(self, path: str) -> int:
        """Return how many requests came whose line matches the regular expression `path`."""
        return sum(re.search(path, line) is not None for line in self.asked)

    @contextmanager
    def serving(self, address: str = "127.0.0.1") -> Iterator[GoogleApi]:
        """Serve on a free port of `address`."""
        handler = type("Handler", (_Handler,), {"api": self})
        with serving_http(handler, address) as self.url:
            yield self

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of the answer to a request."""
        parts = urlsplit(target)
        self.asked.append(f"{method} {parts.path}")
        status, answer = self._route(method, parts.path, parts.query, headers, body.decode())
        if isinstance(answer, bytes):
            return status, {"Content-Type": "application/octet-stream"}, answer
        kind = "application/text" if isinstance(answer, str) else "application/json"
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return status, {**_FLAVOR, "Content-Type": kind}, text.encode()

    def _route(self, method: str, path: str, query: str, headers: Message, body: str) -> tuple[int, Any]:
        if path == "/v2/token" and method == "POST":  # as Google's does; clients ask again by GET then
            return _error(404, "NOT_FOUND", "not found")
        if path.endswith(("/token", "/sts")) and "computeMetadata" not in path:
            return self._sell(path, headers, parse_qs(query or body))
        if method == "GET" and (path == "/" or path.startswith("/computeMetadata/")):
            return self.metadata(path)
        if (headers.get("Authorization") or "").removeprefix("Bearer ") not in self.tokens:
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        return self._use(method, path, query, headers)

    def _use(self, method: str, path: str, query: str, headers: Message) -> tuple[int, Any]:
        """Answer somebody who has shown a token."""
        if path.endswith(":generateAccessToken"):
            return self.impersonate()
        name = unquote(path).lstrip("/")
        if method == "GET" and name in self.objects:
            return self.storage(name)
        return self._manage(method, path, query, headers.get("X-Goog-User-Project") or "")

    def _manage(self, method: str, path: str, query: str, payer: str) -> tuple[int, Any]:
        """Answer artifactregistry.googleapis.com; the request is counted for the project `payer`."""
        self.quota_projects.append(payer)
        if payer and not self.allows(_PAYING):
            return _error(403, "PERMISSION_DENIED", _MAY_NOT_PAY.format(payer))
        found = _REPOSITORY.fullmatch(path)
        if found is None:
            return 200, self.operation()
        created = parse_qs(query).get("repositoryId", [""])[0]
        return self.artifact_registry(method, found[1], found[2] or "", created)

    def _sell(self, path: str, headers: Message, fields: Mapping[str, list[str]]) -> tuple[int, Any]:
        if path == "/v2/token" and self.issue is not None:
            return self.issue(headers.get("Authorization"), fields)
        form = {name: values[0] for name, values in fields.items()}
        return self.token(form) if path == "/token" else self.exchange(form)

    # Tokens. Source: RFC 6749 and RFC 7523, and https://cloud.google.com/iam/docs/reference for the rest.

    def token(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer oauth2.googleapis.com/token."""
        if form.get("grant_type") == _JWT_GRANT:
            refusal = self._check_jwt(form.get("assertion", ""))
            if refusal:
                return 400, {"error": "invalid_grant", "error_description": refusal}
        elif form.get("refresh_token") not in self.refresh_tokens:
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        return 200, {"access_token": self.hand_out(), "expires_in": self.lifetime_s, "token_type": "Bearer"}

    def exchange(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer sts.googleapis.com/v1/token: the token of another cloud for one of Google's."""
        if form.get("subject_token") != "a token of another cloud":
            return 400, {"error": "invalid_grant", "error_description": "The given credential is rejected."}
        kind = "urn:ietf:params:oauth:token-type:access_token"
        answer = {"access_token": self.hand_out(), "expires_in": self.lifetime_s, "token_type": "Bearer"}
        return 200, {**answer, "issued_token_type": kind}

    def impersonate(self) -> tuple[int, dict[str, Any]]:
        """Answer iamcredentials.googleapis.com, generateAccessToken."""
        permission = "iam.serviceAccounts.getAccessToken"
        if not self.allows(permission):
            return _denied(permission, f"projects/-/serviceAccounts/{DEPLOYER}")
        ends_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lifetime_s))
        return 200, {"accessToken": self.hand_out(), "expireTime": ends_at}

    def metadata(self, path: str) -> tuple[int, Any]:
        """Answer the metadata server of a machine that has a service account."""
        answers: dict[str, Any] = {
            "/": "computeMetadata/",
            "/computeMetadata/v1/project/project-id": PROJECT,
            "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
            "/computeMetadata/v1/instance/service-accounts/default/": {"email": ROBOT, "scopes": [], "aliases": []},
        }
        if path.endswith("/token"):
            return 200, {"access_token": self.hand_out(), "expires_in": self.lifetime_s, "token_type": "Bearer"}
        return (200, answers[path]) if path in answers else (404, "not found")

    def _check_jwt(self, assertion: str) -> str:
        """Return what is wrong with a service account's signed request; empty if nothing is."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        signed, _, signature = assertion.rpartition(".")
        public = serialization.load_pem_public_key(self.key)
        assert isinstance(public, rsa.RSAPublicKey)
        try:
            public.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return "Invalid JWT Signature."
        claims = json.loads(_decoded(signed.partition(".")[2]))
        if not claims["iat"] - 60 <= time.time() <= claims["exp"]:
            return "Invalid JWT: Token must be a short-lived token. Check your iat and exp values in the JWT claim."
        is_right = (claims["iss"], claims["aud"]) == (ROBOT, _AUDIENCE)
        return "" if is_right and "googleapis.com/auth/" in claims["scope"] else "Invalid JWT: wrong claims."

    def storage(self, name: str) -> tuple[int, Any]:
        """Answer storage.googleapis.com for an object that is there."""
        permission = "storage.objects.get"
        return (200, self.objects[name]) if self.allows(permission) else _denied(permission, name)

    # Artifact Registry.

    def artifact_registry(self, method: str, parent: str, name: str, created: str) -> tuple[int, Mapping[str, Any]]:
        """Answer for a repository, or for one to be made."""
        if self.refusals:
            return self.refusals.pop(0)
        verb, resource = ("create", f"{parent}/{created}") if method == "POST" else ("get", f"{parent}/{name}")
        permission = f"artifactregistry.repositories.{verb}"
        if not self.allows(permission):
            return _denied(permission, resource)
        if method == "GET":
            there = resource in self.repositories
            return (200, {"name": resource}) if there else _error(404, "NOT_FOUND", "Requested entity was not found.")
        if resource in self.repositories:
            return _error(409, "ALREADY_EXISTS", "the repository already exists")
        self._made = resource
        return 200, self.operation()

    def operation(self) -> dict[str, Any]:
        """Return how far the making of a repository has got."""
        name = f"projects/{PROJECT}/locations/{LOCATION}/operations/1"
        if self.takes > 0:
            self.takes -= 1
            return {"name": name}
        if self.operation_error is not None:
            return {"name": name, "done": True, "error": self.operation_error}
        self.repositories.add(self._made)
        return {"name": name, "done": True, "response": {"name": self._made}}

    _made: str = field(default="", init=False)


class _Handler(BaseHTTPRequestHandler):
    api: GoogleApi
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing."""

    def do_GET(self) -> None:
        """Answer any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, answer = self.api.answer(self.command, self.path, self.headers, body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815 - the name in the standard library


def _error(status: int, code: str, message: str) -> tuple[int, Mapping[str, Any]]:
    return status, {"error": {"code": status, "status": code, "message": message}}


def _denied(permission: str, resource: str) -> tuple[int, Any]:
    message = f"Permission '{permission}' denied on resource '//{resource}' (or it may not exist)."
    return _error(403, "PERMISSION_DENIED", message)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
