"""Connections to the Docker Engine, with one clear error where there can be none."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prebuilt.core.errors import EngineError
from prebuilt.core.settings import Settings
from prebuilt.docker.endpoint import Endpoint, TlsFiles

if TYPE_CHECKING:
    import docker

_CONNECT_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_S = 120.0
"""How long one answer may take. The engine streams what takes longer: builds, pulls and pushes say something now and then."""


def connect(settings: Settings, *, timeout_s: float = REQUEST_TIMEOUT_S) -> docker.DockerClient:
    """Return a client of the engine that the ``docker`` command would use. It has answered once; the caller closes it.

    Args:
        settings: ``DOCKER_HOST``, ``DOCKER_CONTEXT``, ``DOCKER_CONFIG`` and the TLS variables count as they do for the command.
        timeout_s: How long later answers may take to begin.

    Raises:
        EngineError: No engine answers, or it refuses this user.
        SettingError: The Docker context in use cannot be read.
    """
    endpoint = Endpoint.find(settings.environ)
    version = _ask_version(endpoint, _CONNECT_TIMEOUT_S)
    import docker
    from docker.errors import DockerException

    try:
        return docker.DockerClient(version=version, **_options(endpoint, timeout_s))
    except DockerException as error:
        raise _no_engine(endpoint, str(error)) from error


def engine_problem(settings: Settings) -> EngineError | None:
    """Return why no engine can be used, or None if one answers; takes about a second at most.

    Raises:
        SettingError: The Docker context in use cannot be read.
    """
    try:
        _ask_version(Endpoint.find(settings.environ), _PROBE_TIMEOUT_S)
    except EngineError as error:
        return error
    return None


def _ask_version(endpoint: Endpoint, timeout_s: float) -> str:
    """Return the version of the API that the engine speaks, asked on a connection of its own."""
    _check_socket(endpoint, timeout_s)
    from docker.api import APIClient
    from docker.constants import DEFAULT_DOCKER_API_VERSION
    from docker.errors import DockerException

    try:
        # With a version from the start the client's constructor asks nothing, and so leaves nothing open when it fails.
        with contextlib.closing(
            APIClient(version=DEFAULT_DOCKER_API_VERSION, **_options(endpoint, timeout_s))
        ) as client:
            return str(client.version(api_version=False)["ApiVersion"])
    except KeyError as error:
        raise _no_engine(endpoint, "what answers there is not an engine") from error
    except (DockerException, OSError, ValueError) as error:  # those of requests are OSErrors
        raise _unavailable(endpoint, error, timeout_s) from error


def _options(endpoint: Endpoint, timeout_s: float) -> dict[str, Any]:
    return {
        "base_url": endpoint.host,
        "timeout": timeout_s,
        "tls": _tls(endpoint.tls) if endpoint.tls else False,
        "use_ssh_client": True,  # the user's own ssh, with its configuration and agent
    }


def _check_socket(endpoint: Endpoint, timeout_s: float) -> None:
    """Raise at once, without the SDK, where nobody listens on the socket or it is not ours to use."""
    path = endpoint.socket
    if path is None:
        return
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise _unavailable(endpoint, error, timeout_s) from error


def _unavailable(endpoint: Endpoint, error: Exception, timeout_s: float) -> EngineError:
    """Return the error that says what is behind `error`, which may be the SDK's."""
    causes = list(_causes(error))
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if numbers & {errno.EACCES, errno.EPERM}:
        return _no_permission(endpoint)
    if errno.ECONNREFUSED in numbers:
        return _no_engine(endpoint, "nothing listens there")
    if errno.ENOENT in numbers and endpoint.socket:
        return _no_engine(endpoint, "there is no such socket")
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return _no_engine(endpoint, f"no answer within {timeout_s:g} s")
    explained = next((text for cause in causes if (text := getattr(cause, "explanation", None))), None)
    return _no_engine(endpoint, f"it refused: {explained}" if explained else str(error))


def _no_engine(endpoint: Endpoint, reason: str) -> EngineError:
    remedy = "start Docker, or say where it is: DOCKER_HOST or `docker context use`"
    return EngineError("reach the Docker Engine", at=str(endpoint), reason=reason, remedy=remedy)


def _no_permission(endpoint: Endpoint) -> EngineError:
    group = _group(endpoint.socket) if endpoint.socket else None
    join = f"join the group {group} (sudo usermod -aG {group} $USER) and log in anew, or " if group else ""
    return EngineError(
        "reach the Docker Engine",
        at=str(endpoint),
        reason="permission denied: this user may not use it",
        remedy=f"{join}use rootless Docker, which needs no permission",
    )


def _group(path: Path) -> str | None:
    """Return the group whose members may use the socket; None where that is root's own, or cannot be known."""
    try:
        group = path.group()
    except (KeyError, OSError):  # no such group here, or its folder is closed to us
        return None
    return None if group in {"root", "wheel"} else group


def _tls(files: TlsFiles) -> docker.tls.TLSConfig:
    from docker.errors import TLSParameterError
    from docker.tls import TLSConfig

    ca, certificate, key = (files.folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    has_certificate = certificate.is_file() and key.is_file()
    try:
        return TLSConfig(
            ca_cert=str(ca) if ca.is_file() else None,
            client_cert=(str(certificate), str(key)) if has_certificate else None,
            verify=files.verifies,
        )
    except TLSParameterError as error:
        raise EngineError("use Docker's certificates", at=str(files.folder), reason=str(error)) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and what led to it; the SDK and its HTTP client wrap each other's errors several times."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
