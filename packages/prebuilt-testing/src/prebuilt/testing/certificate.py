"""Certificates that a test makes for host names that are not its own."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, GeneralName, Name


def make_certificate(file: Path, *hosts: str) -> ssl.SSLContext:
    """Write a certificate for `hosts` (``*.`` stands for one label) to `file`, its own authority; return a server's context.

    A host may be an address.
    """
    key, name = _new_key(), _common_name("a test's own server")
    certificate = _signed(_certificate(name, name, key, *hosts, is_authority=True), key)
    return _server(file, key, certificate)


def make_signed_certificate(authority: Path, *hosts: str) -> ssl.SSLContext:
    """Write the certificate of a new authority to `authority`; return the context of a server for `hosts` that it vouches for.

    For clients that take no authority for a server, as those in Rust do.
    """
    key, name = _new_key(), _common_name("a test's own authority")
    authority.write_bytes(_pem(_signed(_certificate(name, name, key, is_authority=True), key)))
    own = _new_key()
    of_server = _certificate(_common_name("a test's server"), name, own, *hosts, is_authority=False)
    return _server(authority.with_suffix(".server"), own, _signed(of_server, key))


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _common_name(text: str) -> Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: Name, issuer: Name, key: EllipticCurvePrivateKey, *hosts: str, is_authority: bool
) -> CertificateBuilder:
    from cryptography import x509

    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=is_authority
        )
    )
    names = x509.SubjectAlternativeName([_name(host) for host in hosts])
    return builder.add_extension(names, critical=False) if hosts else builder


def _signed(builder: CertificateBuilder, key: EllipticCurvePrivateKey) -> Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _pem(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def _server(file: Path, key: EllipticCurvePrivateKey, certificate: Certificate) -> ssl.SSLContext:
    """Write `certificate` to `file`, and its key beside it; return the context of a server that shows it."""
    from cryptography.hazmat.primitives import serialization

    file.write_bytes(_pem(certificate))
    key_file = file.with_suffix(".key")
    no_password = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, no_password))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context


def _name(host: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
