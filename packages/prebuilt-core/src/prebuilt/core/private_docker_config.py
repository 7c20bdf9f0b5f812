"""A private folder for ``DOCKER_CONFIG``: the user's own, with logins for registries that the user's lacks."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from prebuilt.core.errors import SettingError
from prebuilt.core.home import home_folder
from prebuilt.core.storage import storage_errors

_FILE = "config.json"
_VARIABLE = "DOCKER_AUTH_CONFIG"
_DOCKER_HUB_HOSTS = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"


def docker_config_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder that ``docker`` reads; it may not exist."""
    return Path(environ.get("DOCKER_CONFIG") or home_folder(environ) / ".docker")


def private_docker_config(
    folder: Path, logins: Mapping[str, Mapping[str, str]], environ: Mapping[str, str]
) -> dict[str, str]:
    """Make `folder`, for its owner only; return the variables that have ``docker`` and ``buildx`` use it.

    Contexts, plugins and everything else of the user's folder are there by links, other registries' logins as they were. The
    user's folder is not changed.

    Args:
        folder: Does not exist yet; whoever makes it removes it.
        logins: By ``host[:port]`` of a registry, as references have it: what ``auths`` holds for it, in place of what the user
            has.
        environ: The process environment.

    Raises:
        SettingError: The user's configuration cannot be read.
        StorageError: The disk is full, or the user's folder cannot be listed.
    """
    own = docker_config_folder(environ).absolute()
    config = _with_logins(_read(own / _FILE), logins)
    with storage_errors("write a Docker configuration for one build", folder, is_temporary=True):
        folder.mkdir(mode=0o700)
        if own.is_dir():
            for path in own.iterdir():
                if path.name != _FILE:
                    (folder / path.name).symlink_to(path)
        handle = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(config, file)
    variables = {}
    if environ.get(_VARIABLE):  # its logins are stronger than the file's
        variables[_VARIABLE] = json.dumps(_without_logins(_parsed(environ[_VARIABLE], _VARIABLE), logins))
    # The user's even where buildx has yet to make it: what it writes there is to last.
    return variables | {
        "DOCKER_CONFIG": str(folder),
        "BUILDX_CONFIG": environ.get("BUILDX_CONFIG") or str(own / "buildx"),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text(encoding="utf-8"), "DOCKER_CONFIG", at=str(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingError("DOCKER_CONFIG", at=str(path), reason=str(error), remedy="mend the file") from error


def _parsed(text: str, name: str, *, at: str = "") -> dict[str, Any]:
    remedy = "mend the file" if at else "mend it, or unset it"
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SettingError(name, at=at, reason=str(error), remedy=remedy) from error
    if not isinstance(data, dict):
        raise SettingError(name, at=at, reason="it is no JSON object", remedy=remedy)
    return data


def _with_logins(config: Mapping[str, Any], logins: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    entries = {login_key(host): dict(entry) for host, entry in logins.items()}
    # An empty helper has a registry's login read from the file, also where a store is set for all others.
    return {
        **config,
        "auths": {**(config.get("auths") or {}), **entries},
        "credHelpers": {**(config.get("credHelpers") or {}), **dict.fromkeys(entries, "")},
    }


def _without_logins(config: Mapping[str, Any], hosts: Collection[str]) -> dict[str, Any]:
    keys = {login_key(host) for host in hosts}
    logins = (config.get("auths") or {}).items()
    return {**config, "auths": {key: login for key, login in logins if login_key(_host_of(key)) not in keys}}


def _host_of(key: str) -> str:
    return (key.partition("://")[2] or key).partition("/")[0]


def login_key(host: str) -> str:
    """Return what the login for `host` is filed under in ``auths``."""
    return _DOCKER_HUB_KEY if host in _DOCKER_HUB_HOSTS else host
