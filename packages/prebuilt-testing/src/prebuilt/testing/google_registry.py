"""A real registry that stands for Artifact Registry: a token service in front of it sells its tokens for Google's."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.google_api import GoogleApi
from prebuilt.testing.google_cloud import GoogleTokenService

_SERVICE, _ISSUER = "artifacts", "a test's token service"
_LIFETIME_S = 300


class Signer:
    """Signs tokens that a registry of the distribution project takes, which is told to trust :attr:`certificate`.

    Source: https://distribution.github.io/distribution/spec/auth/jwt/
    """

    def __init__(self) -> None:
        """Make a key."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = self._certify()

    def sign(self, user: str, access: list[dict[str, Any]]) -> str:
        """Return a token that lets `user` do what `access` says."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.x509 import load_pem_x509_certificate

        der = load_pem_x509_certificate(self.certificate)
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(_der(der)).decode()]}
        claims = {"iss": _ISSUER, "sub": user, "aud": _SERVICE, "access": access, "jti": secrets.token_hex(8)}
        times = {"iat": now, "nbf": now - 60, "exp": now + _LIFETIME_S}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, {**claims, **times}))
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def _certify(self) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509.oid import NameOID

        now, name = datetime.now(timezone.utc), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _ISSUER)])
        builder = x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
        lasting = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        certificate = lasting.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(kw_only=True)
class SigningTokenService(GoogleTokenService):
    """Gives tokens that it signs, so that a registry of its own process knows them."""

    signer: Signer = field(default_factory=Signer)

    def issue(self, authorization: str | None, fields: Mapping[str, list[str]]) -> tuple[int, dict[str, object]]:
        """Answer a request for a token."""
        status, answer = super().issue(authorization, fields)
        if "token" not in answer:
            return status, answer
        scopes = [scope.split(":") for scope in fields.get("scope", [])]
        access = [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in scopes]
        token = self.signer.sign("deployer", access)
        return status, {"token": token, "access_token": token, "expires_in": _LIFETIME_S}


@contextlib.contextmanager
def google_registry(folder: Path, api: GoogleApi, *, address: str = "127.0.0.1") -> Iterator[str]:
    """Give ``address:port`` of a registry that takes the tokens of `api`, which serves, for the time of the body.

    Raises:
        EngineError: The program ``docker-registry`` is not installed.
    """
    service = SigningTokenService(scheme="token", api=api)
    api.issue = service.issue
    folder.mkdir(parents=True, exist_ok=True)
    certificate = folder / "tokens.pem"
    certificate.write_bytes(service.signer.certificate)
    token = {"realm": f"{api.url}/v2/token", "service": _SERVICE, "issuer": _ISSUER, "rootcertbundle": str(certificate)}
    with distribution_registry(folder / "registry", address=address, auth={"token": token}) as host:
        yield host


def _der(certificate: Any) -> bytes:  # noqa: ANN401 - of a package that is imported on use
    from cryptography.hazmat.primitives import serialization

    data: bytes = certificate.public_bytes(serialization.Encoding.DER)
    return data


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
