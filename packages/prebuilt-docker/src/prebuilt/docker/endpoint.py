"""Where the Docker Engine is: found as the ``docker`` command finds it, without starting that command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prebuilt.core.errors import SettingError
from prebuilt.core.loopback import is_loopback
from prebuilt.core.private_docker_config import docker_config_folder
from prebuilt.core.storage import read_if_there

DEFAULT_HOST = "unix:///var/run/docker.sock"
_DEFAULT_CONTEXT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What a connection over TLS shows and trusts.

    Attributes:
        folder: Of ``ca.pem``, ``cert.pem`` and ``key.pem``, of which each may be absent.
        verifies: Whether the server's certificate is checked.
    """

    folder: Path
    verifies: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of an engine.

    Attributes:
        host: ``unix:///path``, ``tcp://host:port``, ``ssh://user@host``.
        origin: What named it, for messages.
        tls: None for none.
    """

    host: str
    origin: str
    tls: TlsFiles | None = None

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Endpoint:
        """Return the engine of ``DOCKER_HOST``, else of the context that is in use, else the one on the usual socket.

        Raises:
            SettingError: The context that is in use is not there, or cannot be read.

        Source: docker/cli, cli/command/cli.go (resolveContextName)
        """
        if environ.get("DOCKER_HOST"):
            return cls(host=environ["DOCKER_HOST"], origin="DOCKER_HOST", tls=_tls_of(environ))
        folder = docker_config_folder(environ)
        name, origin = environ.get("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
        if not name:
            name, origin = str(_read(folder / "config.json").get("currentContext") or ""), str(folder / "config.json")
        if name and name != _DEFAULT_CONTEXT:
            return _context(folder, name, origin)
        return cls(host=DEFAULT_HOST, origin="the default", tls=None)

    def __str__(self) -> str:
        """Return the address and what named it."""
        return f"{self.host} ({self.origin})"

    @property
    def socket(self) -> Path | None:
        """The Unix socket, or None if the engine is reached in another way."""
        scheme, _, path = self.host.partition("://")
        return Path(path) if scheme == "unix" and path else None

    @property
    def is_here(self) -> bool:
        """Whether its loopback is ours: it is not where the engine is on another machine.

        Engines in virtual machines of this machine (Docker Desktop, Colima) pass ports of loopback through.
        """
        parts = urlsplit(self.host)
        return parts.scheme in {"unix", "npipe"} or (parts.scheme == "tcp" and is_loopback(parts.hostname or ""))


def _tls_of(environ: Mapping[str, str]) -> TlsFiles | None:
    """Return what ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` ask for; they apply to ``DOCKER_HOST`` alone."""
    verifies, folder = bool(environ.get("DOCKER_TLS_VERIFY")), environ.get("DOCKER_CERT_PATH")
    if not verifies and not folder:
        return None
    return TlsFiles(folder=Path(folder) if folder else docker_config_folder(environ), verifies=verifies)


def _context(folder: Path, name: str, origin: str) -> Endpoint:
    """Return the endpoint of a context that ``docker context create`` has made.

    Source: docker/cli, cli/context/store (contexts are in folders named by the SHA-256 of their name)
    """
    stored = hashlib.sha256(name.encode()).hexdigest()
    file = folder / "contexts" / "meta" / stored / "meta.json"
    endpoint = _section(_section(_read(file), "Endpoints"), "docker")
    if not endpoint.get("Host"):
        raise SettingError(
            "DOCKER_CONTEXT" if origin == "DOCKER_CONTEXT" else "currentContext",
            at="" if origin == "DOCKER_CONTEXT" else origin,
            reason=f"the Docker context {name!r} is not in {file}",
            remedy="choose one that `docker context ls` shows: docker context use NAME",
        )
    certificates = folder / "contexts" / "tls" / stored / "docker"
    tls = TlsFiles(folder=certificates, verifies=not endpoint.get("SkipTLSVerify")) if certificates.is_dir() else None
    return Endpoint(host=str(endpoint["Host"]), origin=f"the Docker context {name}", tls=tls)


def _section(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = data.get(name)
    return section if isinstance(section, dict) else {}


def _read(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`; an empty one if there is no file."""
    text = read_if_there(file)
    try:
        data = json.loads(text) if text is not None else {}
    except ValueError as error:
        raise SettingError("Docker's configuration", at=str(file), reason=str(error), remedy="mend the file") from error
    return data if isinstance(data, dict) else {}
