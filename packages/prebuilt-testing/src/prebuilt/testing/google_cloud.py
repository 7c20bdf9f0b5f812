"""Google Cloud in this process: its APIs, and a registry behind its real host names that takes the tokens that they gave."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prebuilt.testing.certificate import make_certificate
from prebuilt.testing.connect_proxy import ConnectProxy
from prebuilt.testing.google_api import DEPLOYER, LOCATION, PROJECT, ROBOT, GoogleApi
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.registry_handler import RegistryHandler

HOST = f"{LOCATION}-docker.pkg.dev"
HOSTS = (HOST, "us-docker.pkg.dev", "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io")
_APIS = ".googleapis.com"
REGISTRY_PERMISSIONS = {
    "push": "artifactregistry.repositories.uploadArtifacts",
    "pull": "artifactregistry.repositories.downloadArtifacts",
}
# The documented name of whoever shows a token, and that of Go's libraries, Kaniko's among them.
# Source: https://github.com/google/go-containerregistry/blob/main/pkg/v1/google/auth.go
_USERS = ("oauth2accesstoken", "_token")
_CREATE_ON_PUSH = "artifactregistry.repositories.createOnPush"
_IMAGE_IN_REPOSITORY = 3
"""Parts of ``project/repository/image``; names of Container Registry have two."""


def resource_of(path: str) -> str:
    """Return the repository of Artifact Registry that holds the image called `path`."""
    parts = path.split("/")
    location, name = (LOCATION, parts[1]) if len(parts) >= _IMAGE_IN_REPOSITORY else ("us", "gcr.io")
    return f"projects/{parts[0]}/locations/{location}/repositories/{name}"


@dataclass(kw_only=True)
class GoogleTokenService(RegistryAuth):
    """The token service of Artifact Registry: a Google token buys one of its own, for whom permissions allow it.

    Attributes:
        api: Says which tokens are good, and which permissions nobody has.
        bought: How many tokens of its own it gave.
    """

    api: GoogleApi
    bought: int = 0

    def challenge(self, base_url: str, repository: str, action: str) -> str:
        """Return the ``WWW-Authenticate`` header of a 401."""
        wanted = "pull" if action == "pull" else "pull,push"
        host = base_url.partition("://")[2]
        return f'Bearer realm="{base_url}/v2/token",service="{host}",scope="repository:{repository}:{wanted}"'

    def issue(self, authorization: str | None, fields: Mapping[str, list[str]]) -> tuple[int, dict[str, object]]:
        """Answer a request for a token."""
        if not self.knows(authorization) and authorization is not None:
            return 401, _refusal("UNAUTHORIZED", "authentication failed")
        for scope in fields.get("scope", []):
            _, path, actions = scope.split(":")
            for action in actions.split(","):
                refusal = self._refuse(path, action, is_anonymous=authorization is None)
                if refusal:
                    return 403, _refusal("DENIED", refusal)
        self.bought += 1
        self.users = dict.fromkeys(_USERS, self._shown(authorization))
        return super().issue(authorization, fields) if authorization else self._anonymous(fields)

    def _refuse(self, path: str, action: str, *, is_anonymous: bool) -> str:
        """Return why nobody may do that to the image `path`; empty if it is allowed. A push may make the repository."""
        permission, resource = REGISTRY_PERMISSIONS[action], resource_of(path)
        if not self.api.allows(permission) or (is_anonymous and "public" not in path):
            return f'Permission "{permission}" denied on resource "{resource}" (or it may not exist)'
        if action == "push" and resource.endswith("/gcr.io") and resource not in self.api.repositories:
            if not self.api.allows(_CREATE_ON_PUSH):
                return f"gcr.io repo does not exist. Creating on push requires the {_CREATE_ON_PUSH} permission"
            self.api.repositories.add(resource)
        return ""

    def knows(self, authorization: str | None) -> bool:
        """Return whether the token that was shown is good."""
        return self._shown(authorization) in self.api.tokens

    def _anonymous(self, fields: Mapping[str, list[str]]) -> tuple[int, dict[str, object]]:
        self.anonymous_pull = True
        return super().issue(None, fields)

    @staticmethod
    def _shown(authorization: str | None) -> str:
        _, _, value = (authorization or "").partition(" ")
        try:
            user, _, token = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return token if user in _USERS else ""


class _Handler(RegistryHandler):
    """Answers for the APIs as well, behind their names."""

    def _serve(self) -> None:
        auth = self.registry.auth
        if isinstance(auth, GoogleTokenService) and self.headers.get("Host", "").endswith(_APIS):
            self.registry.requests.remove(self._record)  # it is none of the registry's
            status, headers, body = auth.api.answer(self.command, self.path, self.headers, b"".join(self._body()))
            self._reply(status, body, headers)
        else:
            super()._serve()


@dataclass(frozen=True, kw_only=True)
class GoogleCloud:
    """The APIs and the registry.

    Attributes:
        api: What Google knows.
        registry: What is behind every host name.
        tokens: The registry's token service.
        proxy: What leads to it.
        environ: What a process needs in its environment to find all that, and a service account's key.
        folder: Where credentials files are.
    """

    api: GoogleApi
    registry: InMemoryRegistry
    tokens: GoogleTokenService
    proxy: ConnectProxy
    environ: Mapping[str, str]
    folder: Path

    def make_repository(self, name: str = "metaflow-prebuilt", location: str = LOCATION) -> None:
        """Make a repository of Artifact Registry."""
        self.api.repositories.add(f"projects/{PROJECT}/locations/{location}/repositories/{name}")

    def credentials_file(self, kind: str, **values: Any) -> str:  # noqa: ANN401 - JSON
        """Write a file of credentials of that kind: ``service_account``, ``authorized_user``, ``impersonated``, ``external``."""
        path = self.folder / f"{kind}.json"
        path.write_text(json.dumps({**self._credentials(kind), **values}), encoding="utf-8")
        return str(path)

    def _credentials(self, kind: str) -> dict[str, Any]:
        impersonation = f"{self.api.url}/v1/projects/-/serviceAccounts/{DEPLOYER}:generateAccessToken"
        if kind == "service_account":
            return {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "1",
                "private_key": _key()[0].decode(),
                "client_email": ROBOT,
                "token_uri": f"{self.api.url}/token",
            }
        if kind == "authorized_user":
            self.api.refresh_tokens.add("refresh")
            return {
                "type": "authorized_user",
                "client_id": "client",
                "client_secret": "secret",
                "refresh_token": "refresh",
                "token_uri": f"{self.api.url}/token",
                "quota_project_id": PROJECT,
            }
        if kind == "impersonated":
            source = self._credentials("service_account")
            return {
                "type": "impersonated_service_account",
                "service_account_impersonation_url": impersonation,
                "source_credentials": source,
            }
        subject = self.folder / "subject-token"
        subject.write_text("a token of another cloud", encoding="utf-8")
        return {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/ci",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.api.url}/sts",
            "credential_source": {"file": str(subject)},
            "service_account_impersonation_url": impersonation,
        }


@contextlib.contextmanager
def google_cloud(folder: Path, *, address: str = "127.0.0.1") -> Iterator[GoogleCloud]:
    """Give Google Cloud for the time of the body; `folder` takes files of credentials and a certificate.

    The APIs listen at `address`, for who does not go by their names through the proxy.
    """
    certificate = folder / "google.pem"
    tls = make_certificate(certificate, *HOSTS, f"*{_APIS}")
    with GoogleApi(key=_key()[1]).serving(address) as api:
        tokens = GoogleTokenService(scheme="token", api=api)
        has_repository = lambda path: "public" in path or resource_of(path) in api.repositories  # noqa: E731
        registry = InMemoryRegistry(auth=tokens, tls=tls, has_repository=has_repository, handler=_Handler)
        with registry, ConnectProxy(registry.host).serving() as proxy:
            cloud = GoogleCloud(api=api, registry=registry, tokens=tokens, proxy=proxy, environ={}, folder=folder)
            environ = {
                "GOOGLE_APPLICATION_CREDENTIALS": cloud.credentials_file("service_account"),
                "CLOUDSDK_CONFIG": str(folder / "gcloud"),
                "NO_GCE_CHECK": "true",
                "HTTPS_PROXY": proxy.url,
                "NO_PROXY": f"127.0.0.1,{address}",
                "METAFLOW_PREBUILT_CA_BUNDLE": str(certificate),
            }
            yield GoogleCloud(api=api, registry=registry, tokens=tokens, proxy=proxy, environ=environ, folder=folder)


@functools.cache
def _key() -> tuple[bytes, bytes]:
    """Return a new private key and its public one, PEM; the same for every cloud of this process."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption()), public


def _refusal(code: str, message: str) -> dict[str, object]:
    return {"errors": [{"code": code, "message": message}]}
