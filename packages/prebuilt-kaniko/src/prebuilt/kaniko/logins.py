"""The logins that go with a build, in the form of Docker's configuration file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from prebuilt.core.credentials import Credentials
from prebuilt.core.private_docker_config import login_entry, login_key
from prebuilt.core.settings import Settings
from prebuilt.oci.docker_config import Login
from prebuilt.oci.logins import Logins
from prebuilt.oci.reference import split_repository


def docker_config(
    repository: str, credentials: Credentials | None, pulled: Iterable[str], settings: Settings
) -> bytes | None:
    """Return a ``config.json`` with the logins for some repositories; None where none is known, and Kaniko is anonymous.

    Args:
        repository: What is pushed to.
        credentials: For it; None for what Docker's configuration or the package of a cloud has.
        pulled: Repositories that are pulled from.
        settings: Where those are found.
    """
    auths: dict[str, Any] = {}
    for name in (repository, *pulled):
        host, path = split_repository(name)
        given = credentials if name == repository else None
        found = None if login_key(host) in auths else Logins(host, path, settings, given).find()
        if found is not None:
            auths[login_key(host)] = _entry(found)
    return json.dumps({"auths": auths}, sort_keys=True).encode() if auths else None


def _entry(login: Login) -> dict[str, str]:
    if login.kind == "registry":
        return {"registrytoken": login.credentials.secret}
    return login_entry(login.credentials)
