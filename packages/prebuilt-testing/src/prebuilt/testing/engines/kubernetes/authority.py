"""Keys, certificates and tokens of a cluster: who its parts are to each other."""

from __future__ import annotations

import csv
import ipaddress
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

NODE = "node"
"""The name of the one node."""

# File of a kubeconfig -> user and group. Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
_USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", "system:masters"),
    "scheduler": ("system:kube-scheduler", "system:masters"),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAuthority:
    """Files below `folder`: ``ca.crt``; ``api``, ``kubelet-client`` and ``sa``, each ``.crt`` (``.pub``) and ``.key``; ``tokens.csv``.

    Attributes:
        tokens: Of the users ``admin``, ``controllers``, ``scheduler`` and ``kubelet``.
    """

    folder: Path
    tokens: Mapping[str, str]

    @classmethod
    def make(cls, folder: Path, addresses: list[str]) -> ClusterAuthority:
        """Return an authority of its own for a server at `addresses`."""
        from cryptography.hazmat.primitives.asymmetric import ec

        folder.mkdir(mode=0o700)
        made = cls(folder=folder, tokens={name: secrets.token_hex(24) for name in _USERS})
        with (folder / "tokens.csv").open("w", encoding="ascii", newline="") as file:
            csv.writer(file).writerows(made._token_lines())
        signer = ec.generate_private_key(ec.SECP256R1())
        made._issue("ca", {"CN": "test-ca"}, signer, is_authority=True)
        made._issue("api", {"CN": "kube-apiserver"}, signer, addresses=addresses)
        made._issue("kubelet-client", {"CN": "kube-apiserver-kubelet-client", "O": "system:masters"}, signer)
        made._write_key_pair("sa")
        return made

    def _token_lines(self) -> Iterator[tuple[str, str, str, str]]:
        for name, (user, group) in _USERS.items():
            yield self.tokens[name], user, name, group

    def _issue(
        self,
        name: str,
        subject: Mapping[str, str],
        signer: EllipticCurvePrivateKey,
        *,
        addresses: list[str] | None = None,
        is_authority: bool = False,
    ) -> None:
        """Write a certificate; the authority's is its own."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding

        key, now = signer if is_authority else ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name({"CN": "test-ca"}))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        self._write_key(name, key)

    def _write_key_pair(self, name: str) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.folder / f"{name}.pub").write_bytes(public)
        self._write_key(name, key)

    def _write_key(self, name: str, key: EllipticCurvePrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(pem)


def _name(parts: Mapping[str, str]) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    kinds = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME}
    return x509.Name([x509.NameAttribute(kinds[kind], value) for kind, value in parts.items()])
