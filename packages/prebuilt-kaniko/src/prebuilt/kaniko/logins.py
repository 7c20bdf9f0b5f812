"""The logins that go with a build, in the form of Docker's configuration file."""

from __future__ import annotations

import json
from collections.abc import Iterable

from prebuilt.core.credentials import Credentials
from prebuilt.core.private_docker_config import login_key
from prebuilt.core.settings import Settings
from prebuilt.oci.logins import find_logins
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
    given = {split_repository(repository)[0]: credentials} if credentials else {}
    found = find_logins((repository, *pulled), settings, given=given)
    auths = {login_key(host): login.entry for host, login in found.items()}
    return json.dumps({"auths": auths}, sort_keys=True).encode() if auths else None
