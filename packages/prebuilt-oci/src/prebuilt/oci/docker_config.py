"""Credentials as ``docker login`` and ``podman login`` left them: in files, or with a credential helper."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import SettingError, UnauthorizedError
from prebuilt.core.home import home_folder
from prebuilt.core.private_docker_config import docker_config_folder
from prebuilt.core.storage import storage_errors

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS = ("index.docker.io", "docker.io", "registry-1.docker.io")
_HELPER_TIMEOUT_S = 60.0
_NOT_FOUND = "credentials not found"  # Source: docker-credential-helpers/credentials/error.go
# Of passwords that end by themselves, by the user name that they are shown with. `docker login` keeps them beyond their end.
# Source: https://docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html and
# https://cloud.google.com/artifact-registry/docs/docker/authentication#token
_LIFETIMES = {"AWS": "12 hours", "oauth2accesstoken": "an hour"}
_MAKING_STORES = frozenset({"ecr-login", "gcloud", "gcr"})
"""Helpers that keep no password, and have a new one for each who asks."""

_IDENTITY_TOKEN_USER = "<token>"  # noqa: S105 - the user name by which a helper says that its secret is a token

_STORE = "credsStore"
VARIABLE = "DOCKER_AUTH_CONFIG"

_log = logging.getLogger(__name__)

LoginKind = Literal["password", "identity", "registry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Credentials with what they are and where they are from.

    Attributes:
        kind: ``password`` is a user name with a password, ``identity`` a refresh token for the registry's token service,
            ``registry`` a token to show to the registry itself.
        origin: For messages; never holds the secret.
        is_kept: Whether it is what a login once left, rather than what somebody has given now.
    """

    credentials: Credentials
    kind: LoginKind
    origin: str
    is_kept: bool = False

    @classmethod
    def explicit(cls, credentials: Credentials) -> Login:
        """Return what a caller gave; a secret without a user name is an identity token."""
        return cls(
            credentials=credentials,
            kind="password" if credentials.username else "identity",
            origin="the registry plugin",
        )

    @property
    def may_have_ended(self) -> bool:
        """Whether it is a password of a cloud, which ends within hours, and whose end is not known."""
        return self.is_kept and self.credentials.username in _LIFETIMES

    @property
    def entry(self) -> dict[str, str]:
        """What ``auths`` of Docker's configuration holds for it."""
        secret = self.credentials.secret
        if self.kind == "password":
            pair = f"{self.credentials.username}:{secret}"
            return {"auth": base64.b64encode(pair.encode()).decode()}
        return {f"{self.kind}token": secret}

    def __str__(self) -> str:
        """Return whose credentials these are and where they are from."""
        user = f"user {self.credentials.username!r}" if self.credentials.username else f"the {self.kind} token"
        if self.may_have_ended:
            return f"{user} from {self.origin}, whose password ends {_LIFETIMES[self.credentials.username]} after it was made"
        return f"{user} from {self.origin}{', which have expired' if self.credentials.is_expired else ''}"


@dataclass(frozen=True, slots=True)
class LoginFile:
    """One ``config.json`` or ``auth.json``.

    Source: https://docs.docker.com/reference/cli/docker/login/ and containers-auth.json(5)
    """

    path: Path
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> LoginFile | None:
        """Return the file; None if there is none, or, as for Docker, none that this user may read: their home may be another's.

        Raises:
            SettingError: It is not a JSON object.
            StorageError: It cannot be read for another reason.
        """
        with storage_errors(f"read {path.name}", path.parent):
            try:
                text = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except PermissionError as error:
                _log.warning("%s is not used: %s", path, error.strerror)
                return None
        return cls(path, _parsed(text, str(path), "mend the file"))

    @classmethod
    def of_variable(cls, environ: Mapping[str, str]) -> LoginFile | None:
        """Return what is in ``DOCKER_AUTH_CONFIG``, as CI systems set it; None if that is not set. It names no helpers.

        Raises:
            SettingError: It is not a JSON object.

        Source: https://docs.docker.com/reference/cli/docker/ (environment variables)
        """
        text = environ.get(VARIABLE)
        if not text:
            return None
        data = _parsed(text, VARIABLE, 'write {"auths": {…}}, or unset it')
        return cls(Path(VARIABLE), {"auths": data.get("auths")})

    def find(self, host: str, repository: str) -> Login | None:
        """Return the login for `repository` at `host`, or None.

        Raises:
            UnauthorizedError: The helper that the file names for it failed.
            SettingError: What the file has for it cannot be read.
        """
        helper, field = self._helper(host)
        if helper:
            found = ask_helper(helper, _DOCKER_HUB_KEY if _is_docker_hub(host) else host, f"{field} of {self.path}")
            if found is not None:
                return replace(found, is_kept=field == _STORE and helper not in _MAKING_STORES)
        for key in _keys(host, repository):
            for name, entry in self._section("auths").items():
                if _normal(name) == key and isinstance(entry, dict):
                    found = self._entry(name, entry)
                    if found is not None:
                        return found
        return None

    def _section(self, name: str) -> dict[str, Any]:
        section = self.data.get(name) or {}
        return section if isinstance(section, dict) else {}

    def _helper(self, host: str) -> tuple[str, str]:
        helpers = {_normal(name): str(helper) for name, helper in self._section("credHelpers").items()}
        for name in _DOCKER_HUB_HOSTS if _is_docker_hub(host) else (host,):
            if helpers.get(name):
                return helpers[name], "credHelpers"
        return str(self.data.get(_STORE) or ""), _STORE

    def _entry(self, name: str, entry: Mapping[str, Any]) -> Login | None:
        origin = str(self.path)
        user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            user, password = self._decode(name, str(entry["auth"]))
        kinds: tuple[tuple[LoginKind, str], ...] = (
            ("registry", str(entry.get("registrytoken") or "")),
            ("identity", str(entry.get("identitytoken") or "")),
            ("password", password if user else ""),
        )
        for kind, secret in kinds:
            if secret:
                credentials = Credentials(username=user, secret=secret)
                return Login(credentials=credentials, kind=kind, origin=origin, is_kept=True)
        return None

    def _decode(self, name: str, auth: str) -> tuple[str, str]:
        try:
            user, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise SettingError(
                f"auths.{name}.auth",
                at=str(self.path),
                reason="it is not base64 of user:password",
                remedy=f"run `docker login {name}` again",
            ) from error
        return user, password.rstrip("\0")  # Docker strips them, too: an old client padded


def _parsed(text: str | bytes, at: str, remedy: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        # The text is not in the message: it may hold a secret.
        raise SettingError("registry logins", at=at, reason=str(error), remedy=remedy) from error
    if not isinstance(data, dict):
        raise SettingError("registry logins", at=at, reason="it is not a JSON object", remedy=remedy)
    return data


def find_login(host: str, repository: str, environ: Mapping[str, str]) -> Login | None:
    """Return the login for a repository from ``DOCKER_AUTH_CONFIG``, else Docker's file, else Podman's; None if none has one.

    Args:
        host: ``host[:port]`` as references have it: ``docker.io``.
        repository: Its path there; Podman's file may hold logins for parts of a registry.
        environ: The process environment.

    Raises:
        UnauthorizedError: A credential helper failed.
        SettingError: A file cannot be read.
    """
    found = find_variable_login(host, repository, environ) or find_docker_login(host, repository, environ)
    return found or find_podman_login(host, repository, environ)


def find_docker_login(host: str, repository: str, environ: Mapping[str, str]) -> Login | None:
    """Return the login that Docker's file has for a repository, or a helper that it names; None if there is none.

    Raises:
        UnauthorizedError: A credential helper failed.
        SettingError: A file cannot be read.
    """
    return _find_in([docker_login_file(environ)], host, repository)


def find_podman_login(host: str, repository: str, environ: Mapping[str, str]) -> Login | None:
    """Return the login that Podman's own files have for a repository; None if they have none.

    Raises:
        UnauthorizedError: A credential helper failed.
        SettingError: A file cannot be read.
    """
    return _find_in(podman_login_files(environ), host, repository)


def _find_in(paths: list[Path], host: str, repository: str) -> Login | None:
    for path in paths:
        file = LoginFile.read(path)
        found = file.find(host, repository) if file else None
        if found is not None:
            return found
    return None


def find_variable_login(host: str, repository: str, environ: Mapping[str, str]) -> Login | None:
    """Return the login that ``DOCKER_AUTH_CONFIG`` has for a repository; None if it has none.

    Raises:
        SettingError: It cannot be read.
    """
    variable = LoginFile.of_variable(environ)
    return variable.find(host, repository) if variable else None


def docker_login_file(environ: Mapping[str, str]) -> Path:
    """Return the file that may hold logins of Docker; it need not exist."""
    return docker_config_folder(environ) / "config.json"


def podman_login_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the files that may hold logins of Podman alone, first to last; they need not exist.

    Raises:
        SettingError: ``REGISTRY_AUTH_FILE`` names a file that is not there.
    """
    named = environ.get("REGISTRY_AUTH_FILE")
    if named:
        if not Path(named).is_file():
            raise SettingError("REGISTRY_AUTH_FILE", at=named, reason="no such file", remedy="log in, or unset it")
        return [Path(named)]
    config = Path(environ.get("XDG_CONFIG_HOME") or home_folder(environ) / ".config") / "containers" / "auth.json"
    if sys.platform == "darwin":
        return [config]
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "containers" / "auth.json"
    return [runtime, config]


def ask_helper(name: str, server: str, origin: str) -> Login | None:
    """Return what ``docker-credential-NAME get`` has for `server`; None if it says that it has nothing.

    Raises:
        UnauthorizedError: It is not installed, failed, hung, or said something else.

    Source: https://github.com/docker/docker-credential-helpers#development
    """
    command = f"docker-credential-{name}"

    def failure(reason: str) -> UnauthorizedError:
        return UnauthorizedError(
            f"ask {command} (from {origin}) for credentials for {server}",
            reason=reason,
            remedy=f"mend the helper, or remove it from {origin}",
        )

    try:
        done = subprocess.run(
            [command, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise failure("it is not installed, or not on PATH") from error
    except OSError as error:
        raise failure(error.strerror or str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise failure(f"no answer within {_HELPER_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        said = " ".join((done.stdout + b"\n" + done.stderr).decode(errors="replace").split())
        if _NOT_FOUND in said.lower():
            return None
        raise failure(f"it failed with status {done.returncode}: {said[-500:] or 'it said nothing'}")
    return _helper_login(done.stdout, f"{command} ({origin})", failure)


def _helper_login(output: bytes, origin: str, failure: Callable[[str], UnauthorizedError]) -> Login | None:
    try:
        answer = json.loads(output)
        user, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    except (ValueError, AttributeError) as error:
        # The output is in no message: it may hold the secret.
        raise failure("its answer is not the JSON object that the protocol wants") from error
    if not secret:
        return None
    if user == _IDENTITY_TOKEN_USER:
        return Login(credentials=Credentials(username="", secret=secret), kind="identity", origin=origin)
    return Login(credentials=Credentials(username=user, secret=secret), kind="password", origin=origin)


def _is_docker_hub(host: str) -> bool:
    return host in _DOCKER_HUB_HOSTS


def _keys(host: str, repository: str) -> Iterator[str]:
    """Yield what a login may be filed under, most specific first."""
    parts = repository.split("/") if repository else []
    for name in _DOCKER_HUB_HOSTS if _is_docker_hub(host) else (host,):
        for length in range(len(parts), -1, -1):
            yield "/".join((name, *parts[:length]))


def _normal(key: str) -> str:
    """Return a key without its scheme, its slash at the end and the API version that old Docker wrote."""
    bare = key.partition("://")[2] or key
    bare = bare.rstrip("/")
    return bare.removesuffix("/v1").removesuffix("/v2")
