"""The logins that go with a build, in the form of Docker's configuration file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from prebuilt.core.credentials import Credentials
from prebuilt.core.private_docker_config import login_key
from prebuilt.core.settings import Settings
from prebuilt.oci.docker_config import Login
from prebuilt.oci.logins import find_logins
from prebuilt.oci.reference import split_repository


def sent_logins(
    repository: str, credentials: Credentials | None, pulled: Iterable[str], settings: Settings
) -> dict[str, Login]:
    """Return the logins for the registries of some repositories by ``host[:port]``; to others Kaniko is anonymous.

    Args:
        repository: What is pushed to.
        credentials: For it; None for what Docker's configuration or the package of a cloud has.
        pulled: Repositories that are pulled from.
        settings: Where those are found.
    """
    given = {split_repository(repository)[0]: credentials} if credentials else {}
    return find_logins((repository, *pulled), settings, given=given)


def docker_config(logins: Mapping[str, Login]) -> bytes | None:
    """Return a ``config.json`` with `logins`; None if there are none."""
    auths = {login_key(host): login.entry for host, login in logins.items()}
    return json.dumps({"auths": auths}, sort_keys=True).encode() if auths else None
