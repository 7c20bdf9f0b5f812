"""How registries are reached: over TLS or plainly, and which certificate authorities are trusted."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.errors import SettingError
from prebuilt.core.home import home_folder
from prebuilt.core.loopback import is_loopback
from prebuilt.core.settings import Settings

INSECURE_SETTING = "METAFLOW_PREBUILT_INSECURE_REGISTRIES"
CA_SETTING = "METAFLOW_PREBUILT_CA_BUNDLE"

_LOCAL_REGISTRY = ("PREBUILT_LOCAL_REGISTRY_PUSH", "PREBUILT_LOCAL_REGISTRY_PULL")
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What TLS connections to one host rely on. Equal values share their connections.

    Attributes:
        ca_file: PEM file in place of the system's authorities.
        ca_folder: Folder of PEM files named by their hash, in place of the system's.
        extra_ca_files: Added to those.
        client_certificate: Files of a certificate and its key to show to the server.
    """

    ca_file: Path | None = None
    ca_folder: Path | None = None
    extra_ca_files: tuple[Path, ...] = ()
    client_certificate: tuple[Path, Path] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """How registries are reached.

    Attributes:
        insecure: Hosts, with or without a port, that are spoken to without TLS.
        local: Hosts that are spoken to as if they were on loopback.
        ca_file: See :class:`Trust`.
        ca_folder: See :class:`Trust`.
        certificate_folders: Where a folder for each host may be: Docker's ``certs.d``.
    """

    insecure: frozenset[str] = frozenset()
    local: frozenset[str] = frozenset()
    ca_file: Path | None = None
    ca_folder: Path | None = None
    certificate_folders: tuple[Path, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> NetworkConfig:
        """Read the settings, and what OpenSSL, requests, Docker and Podman are configured with.

        Raises:
            SettingError: A setting is malformed, or names a file that is not there.
        """
        ca_file, ca_folder = _authorities(settings)
        return cls(
            insecure=frozenset(_insecure_hosts(settings.get("PREBUILT_INSECURE_REGISTRIES", "") or "")),
            local=frozenset(_local_hosts(settings)),
            ca_file=ca_file,
            ca_folder=ca_folder,
            certificate_folders=_certificate_folders(settings),
        )

    def base_url(self, host: str) -> str:
        """Return scheme and host of a registry's API; Docker Hub's is not where its name says.

        A local host is spoken to plainly, unless a certificate folder for it says that it has TLS.
        """
        if host == _DOCKER_HUB:
            return f"https://{_DOCKER_HUB_API}"
        plain = self.allows_plain_http(host) and (self._is_insecure(host) or self._certificates(host) is None)
        return f"{'http' if plain else 'https'}://{host}"

    def allows_plain_http(self, host: str) -> bool:
        """Return whether requests may go to `host` (``name[:port]``) without TLS."""
        return is_loopback(host_name(host)) or host in self.local or self._is_insecure(host)

    def trust(self, host: str) -> Trust:
        """Return what TLS connections to `host` (``name[:port]``) rely on.

        Source: https://docs.docker.com/engine/security/certificates/
        """
        files = self._certificates(host) or ()
        pairs = [(file, file.with_suffix(".key")) for file in files if file.suffix == ".cert"]
        return Trust(
            ca_file=self.ca_file,
            ca_folder=self.ca_folder,
            extra_ca_files=tuple(file for file in files if file.suffix == ".crt"),
            client_certificate=next((pair for pair in pairs if pair[1].is_file()), None),
        )

    def _is_insecure(self, host: str) -> bool:
        return bool(self.insecure & {host, host_name(host)})

    def _certificates(self, host: str) -> tuple[Path, ...] | None:
        """Return what is in the first folder for `host`; None if there is none, or none that this user may look into."""
        for folder in self.certificate_folders:
            # As for Podman: /etc/docker is closed to all but root on many machines.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                return tuple(sorted((folder / host).iterdir()))
        return None


def host_name(host: str) -> str:
    """Return `host` without its port, an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_private(name: str) -> bool:
    """Return whether a host name is of a private network: an address of RFC 1918 or its like, or a name without a dot."""
    try:
        return ipaddress.ip_address(name).is_private
    except ValueError:
        return "." not in name


def _local_hosts(settings: Settings) -> Iterator[str]:
    """Yield the hosts of the registry ``local`` that are of a private network.

    They are read here, since whoever pushes to a registry, or pulls from it, must speak to it in the same way.
    """
    for name in _LOCAL_REGISTRY:
        host = (settings.get(name) or "").partition("/")[0]
        if host and is_private(host_name(host)):
            yield host


def _insecure_hosts(value: str) -> list[str]:
    hosts = [part.strip() for part in value.split(",") if part.strip()]
    for host in hosts:
        if "/" in host:
            raise SettingError(
                INSECURE_SETTING, reason=f"{host!r} is not a host", remedy="write host or host:port, without a scheme"
            )
    return hosts


def _authorities(settings: Settings) -> tuple[Path | None, Path | None]:
    """Return file and folder of the first of the settings that says whom to trust."""
    own = settings.get("PREBUILT_CA_BUNDLE")
    if own:
        return _file_or_folder(CA_SETTING, own)
    openssl = [settings.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
    if any(openssl):
        file, folder = openssl
        return (
            _file_or_folder("SSL_CERT_FILE", file)[0] if file else None,
            _file_or_folder("SSL_CERT_DIR", folder)[1] if folder else None,
        )
    requests = settings.environ.get("REQUESTS_CA_BUNDLE")
    return _file_or_folder("REQUESTS_CA_BUNDLE", requests) if requests else (None, None)


def _file_or_folder(name: str, value: str) -> tuple[Path | None, Path | None]:
    path = Path(value).expanduser()
    if path.is_dir():
        return None, path
    if path.is_file():
        return path, None
    raise SettingError(
        name, at=value, reason="no such file or folder", remedy="name a PEM file with certificate authorities"
    )


def _certificate_folders(settings: Settings) -> tuple[Path, ...]:
    home = home_folder(settings.environ)
    return (
        home / ".config" / "docker" / "certs.d",
        home / ".config" / "containers" / "certs.d",
        Path("/etc/docker/certs.d"),
        Path("/etc/containers/certs.d"),
    )
