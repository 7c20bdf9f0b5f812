"""The logins that go with a build: for where it pushes to, and for where its base images are."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.settings import Settings
from prebuilt.oci import cloud_logins, docker_config
from prebuilt.oci.docker_config import Login
from prebuilt.oci.logins import find_logins

CLOUD = "1.cloud.example"
GIVEN = Credentials(username="AWS", secret="given")


def auth(user: str) -> dict[str, str]:
    """Return an entry of a file with logins."""
    return {"auth": base64.b64encode(f"{user}:secret".encode()).decode()}


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings of a user who has logged in to two registries, with a package for the hosts of a cloud."""
    files = {"home/.docker": ("config.json", "docker.example"), "run/containers": ("auth.json", "podman.example")}
    for folder, (name, host) in files.items():
        (home / folder).mkdir(parents=True)
        (home / folder / name).write_text(json.dumps({"auths": {host: auth(name)}}))

    class Point:
        @staticmethod
        def load() -> Callable[[str, Settings], Any]:
            """Give the package's function."""
            return lambda host, _: (lambda _=None: GIVEN) if host.endswith(".cloud.example") else None

    monkeypatch.setattr(cloud_logins, "_installed", lambda: (Point,))
    return Settings({"HOME": str(home / "home"), "XDG_RUNTIME_DIR": str(home / "run")}, {})


def test_each_registry_has_its_own(settings: Settings) -> None:
    """Logins are found as they are for reading an image; who is anonymous has none; what a caller gives comes first."""
    names = ("docker.example/a", "podman.example/b", f"{CLOUD}/c", "docker.io/library/python", "docker.example/d")
    given = {"docker.example": Credentials(username="me", secret="better")}
    found = find_logins(names, settings, given=given)
    assert {host: login.credentials.username for host, login in found.items()} == {
        "docker.example": "me",
        "podman.example": "auth.json",
        CLOUD: "AWS",
    }


def test_what_docker_has_is_left_to_it(settings: Settings) -> None:
    """What is not in Docker's file has to be handed to it: of the caller, of Podman, of a cloud, of a variable that is newer than it."""
    names = ("docker.example/a", "podman.example/b", f"{CLOUD}/c", "docker.io/library/python")
    assert find_logins(names, settings, beyond_docker=True).keys() == {"podman.example", CLOUD}
    in_variable = json.dumps({"auths": {"docker.example": auth("variable"), CLOUD: auth("variable")}})
    with_variable = Settings({**settings.environ, "DOCKER_AUTH_CONFIG": in_variable}, {})
    found = find_logins(names, with_variable, beyond_docker=True)
    assert {host: login.credentials.username for host, login in found.items()} == {
        "docker.example": "variable",
        "podman.example": "auth.json",
        CLOUD: "variable",
    }
    given = {"docker.example": GIVEN}
    assert find_logins(names[:1], settings, given=given, beyond_docker=True).keys() == {"docker.example"}


@pytest.mark.parametrize(
    ("config", "user"),
    [
        ({"auths": {CLOUD: auth("AWS")}}, "AWS"),
        ({"auths": {CLOUD: auth("oauth2accesstoken")}}, "AWS"),
        ({"auths": {CLOUD: auth("_json_key")}}, "_json_key"),
        ({"credsStore": "keychain"}, "AWS"),
        ({"credsStore": "ecr-login"}, "helped"),
        ({"credHelpers": {CLOUD: "keychain"}}, "helped"),
    ],
)
def test_what_a_cloud_gives_now_stands_before_what_was_kept(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], user: str
) -> None:
    """A kept password that ends within hours is replaced; one that lasts, and that of a helper which makes them, is not."""
    helped = Login(credentials=Credentials(username="AWS", secret="helped"), kind="password", origin="a helper")
    monkeypatch.setattr(docker_config, "ask_helper", lambda *_: helped)
    (home / "home/.docker/config.json").write_text(json.dumps(config))
    (login,) = find_logins([f"{CLOUD}/a"], settings).values()
    assert user == ("helped" if login == helped else login.credentials.username)
    assert bool(find_logins([f"{CLOUD}/a"], settings, beyond_docker=True)) is (user == "AWS")


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("password", {"auth": base64.b64encode(b"me:secret").decode()}),
        ("identity", {"identitytoken": "secret"}),
        ("registry", {"registrytoken": "secret"}),
    ],
)
def test_entries_of_a_file(kind: Any, entry: dict[str, str]) -> None:
    """Each kind of login is filed as Docker files it, an identity token also where it has a user name."""
    login = Login(credentials=Credentials(username="me", secret="secret"), kind=kind, origin="a test")
    assert login.entry == entry
