"""Logins as the engine's API takes them, which is not as files have them: a user's password is not encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from prebuilt.core.private_docker_config import login_key
from prebuilt.oci.docker_config import Login

if TYPE_CHECKING:
    import docker


def engine_login(login: Login) -> dict[str, str]:
    """Return a login for the engine.

    Source: https://docs.docker.com/reference/api/engine/version/v1.41/#section/Authentication
    """
    if login.kind == "password":
        return {"username": login.credentials.username, "password": login.credentials.secret}
    return login.entry


def log_in(client: docker.APIClient, logins: Mapping[str, Login]) -> None:
    """Have `client`, which nobody else uses, show `logins` with its builds, beside those of Docker's file.

    As its ``login()`` does, but for what that asks of the registry, and with tokens of every kind. They are in no file.
    """
    for host, login in logins.items():
        cast("Any", client)._auth_configs.add_auth(login_key(host), engine_login(login))  # noqa: SLF001 - see above
