"""The certificate authorities that this machine is configured to trust, for Kaniko to trust them too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prebuilt.core.storage import storage_errors
from prebuilt.oci.config import NetworkConfig, Trust

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """Certificate authorities for some registries. The machine's own, of which nobody configured anything, are not among them.

    Attributes:
        hosts: The registries whose certificates they vouch for.
        data: The authorities, each once, as PEM.
    """

    hosts: tuple[str, ...] = ()
    data: bytes = field(default=b"", repr=False)


def authorities(network: NetworkConfig, hosts: set[str]) -> Authorities:
    """Return what settings, OpenSSL's variables and Docker's ``certs.d`` have for those of `hosts` that have TLS.

    Raises:
        StorageError: A file cannot be read.
    """
    trusted = {host: network.trust(host) for host in hosts if network.base_url(host).startswith("https://")}
    files = {host: tuple(_files(trust)) for host, trust in trusted.items()}
    data = dict.fromkeys(one for file in sorted(set().union(*files.values())) for one in _read(file))
    return Authorities(
        hosts=tuple(sorted(host for host, each in files.items() if each)), data=b"".join(one + b"\n" for one in data)
    )


def _files(trust: Trust) -> Iterator[Path]:
    if trust.ca_file is not None:
        yield trust.ca_file
    if trust.ca_folder is not None:
        yield from sorted(path for path in trust.ca_folder.iterdir() if path.is_file())
    yield from trust.extra_ca_files


def _read(path: Path) -> list[bytes]:
    with storage_errors("read certificates", path):
        return _CERTIFICATE.findall(path.read_bytes())
