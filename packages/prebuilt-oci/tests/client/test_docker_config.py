from __future__ import annotations

import base64
import errno
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import SettingError, UnauthorizedError
from prebuilt.oci.docker_config import Login, find_login, podman_login_files


def write(path: Path, data: object) -> Path:
    """Write a file, JSON unless it is text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def auth(user: str, password: str) -> str:
    """Return what `auth` of Docker's file holds."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    """An environment in which no login is configured."""
    return {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}


@pytest.fixture
def helper(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes ``docker-credential-NAME`` of a shell script."""
    folder = home / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def make(name: str, script: str) -> None:
        path = folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


def found(host: str, repository: str, environ: dict[str, str]) -> tuple[str, str, str] | None:
    """Return kind, user and secret of the login that is found."""
    login = find_login(host, repository, environ)
    return None if login is None else (login.kind, login.credentials.username, login.credentials.secret)


def test_a_login_that_is_not_ours_to_read_is_not_ours(
    home: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where HOME is still that of who called sudo, images that need no login can be had all the same; the log says what is not used."""
    theirs = write(home / ".docker/config.json", {"auths": {"ghcr.io": {"auth": auth("ada", "a:b")}}})
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == theirs:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, who may run this, may read everything
    assert found("ghcr.io", "team/app", environ) is None
    assert f"{theirs} is not used: Permission denied" in caplog.text


def test_a_home_that_is_no_folder_has_no_logins(environ: dict[str, str]) -> None:
    """Some accounts of services have /dev/null as their home."""
    assert found("ghcr.io", "team/app", {**environ, "HOME": "/dev/null"}) is None


@pytest.mark.parametrize("host", ["ghcr.io", "https://ghcr.io", "https://ghcr.io/v2/", "http://ghcr.io/v1/"])
def test_a_login_is_found_however_its_host_is_written(home: Path, environ: dict[str, str], host: str) -> None:
    """Old and new spellings of a host in `auths` are one."""
    write(home / ".docker/config.json", {"auths": {host: {"auth": auth("ada", "a:b")}}})

    assert found("ghcr.io", "team/app", environ) == ("password", "ada", "a:b")
    assert found("ghcr.io:5000", "team/app", environ) is None


@pytest.mark.parametrize("host", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
def test_docker_hub_is_found_under_its_old_address(home: Path, environ: dict[str, str], host: str) -> None:
    """`docker login` without a host writes an address that no reference has."""
    write(home / ".docker/config.json", {"auths": {host: {"auth": auth("ada", "x")}}})

    assert found("docker.io", "library/python", environ) == ("password", "ada", "x")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "ada", "password": "x"}, ("password", "ada", "x")),
        ({"auth": auth("ada", ""), "identitytoken": "t"}, ("identity", "ada", "t")),
        ({"registrytoken": "r", "identitytoken": "t"}, ("registry", "", "r")),
        ({}, None),
        ({"email": "ada@example.org"}, None),
    ],
)
def test_each_kind_of_entry_is_read(
    home: Path, environ: dict[str, str], entry: dict[str, str], expected: tuple[str, str, str] | None
) -> None:
    """Passwords, identity tokens and registry tokens."""
    write(home / ".docker/config.json", {"auths": {"ghcr.io": entry}})

    assert found("ghcr.io", "team/app", environ) == expected


def test_the_first_file_that_has_it_decides(home: Path, environ: dict[str, str]) -> None:
    """Docker's file is before Podman's; DOCKER_CONFIG and REGISTRY_AUTH_FILE are respected."""
    podman = write(home / "run/containers/auth.json", {"auths": {"ghcr.io": {"auth": auth("podman", "x")}}})
    assert found("ghcr.io", "a", environ) == ("password", "podman", "x")

    write(home / "elsewhere/config.json", {"auths": {"ghcr.io": {"auth": auth("docker", "x")}}})
    assert found("ghcr.io", "a", {**environ, "DOCKER_CONFIG": str(home / "elsewhere")}) == ("password", "docker", "x")

    named = write(home / "named.json", {"auths": {"ghcr.io": {"auth": auth("named", "x")}}})
    assert found("ghcr.io", "a", {**environ, "REGISTRY_AUTH_FILE": str(named)}) == ("password", "named", "x")
    assert podman not in podman_login_files({**environ, "REGISTRY_AUTH_FILE": str(named)})


def test_podmans_logins_for_parts_of_a_registry(home: Path, environ: dict[str, str]) -> None:
    """The most specific key decides."""
    entries = {
        "quay.io": {"auth": auth("all", "x")},
        "quay.io/team": {"auth": auth("team", "x")},
        "quay.io/team/app": {"auth": auth("app", "x")},
    }
    write(home / "run/containers/auth.json", {"auths": entries})

    users = [found("quay.io", path, environ) for path in ("team/app", "team/other", "someone/app")]
    assert [user and user[1] for user in users] == ["app", "team", "all"]


def test_a_helper_is_told_the_server_and_believed(
    home: Path, environ: dict[str, str], helper: Callable[[str, str], None]
) -> None:
    """A helper for the host is before credsStore; Docker Hub has its old address here, too."""
    helper("echo", """read -r url; printf '{"Username":"%s","Secret":"one"}' "$url" """)
    helper("token", """printf '{"Username":"<token>","Secret":"two"}'""")
    write(home / ".docker/config.json", {"credsStore": "echo", "credHelpers": {"ghcr.io": "token"}})

    assert found("quay.io", "a", environ) == ("password", "quay.io", "one")
    assert found("docker.io", "a", environ) == ("password", "https://index.docker.io/v1/", "one")
    assert found("ghcr.io", "a", environ) == ("identity", "", "two")


def test_a_helper_that_has_nothing_is_no_failure(
    home: Path, environ: dict[str, str], helper: Callable[[str, str], None]
) -> None:
    """What the protocol says for "not found" means that there are no credentials, and the files are looked at."""
    helper("none", "echo credentials not found in native keychain; exit 1")
    path = home / ".docker/config.json"
    write(path, {"credsStore": "none"})
    assert found("ghcr.io", "a", environ) is None

    write(path, {"credsStore": "none", "auths": {"ghcr.io": {"auth": auth("ada", "x")}}})
    assert found("ghcr.io", "a", environ) == ("password", "ada", "x")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo the keyring is locked >&2; exit 3", "failed with status 3: the keyring is locked"),
        ("echo hunter2", "not the JSON object"),
    ],
)
def test_a_helper_that_fails_is_an_error(
    home: Path, environ: dict[str, str], helper: Callable[[str, str], None], script: str, words: str
) -> None:
    """Nobody is asked anonymously instead; an answer that cannot be read is not shown, for it may hold the secret."""
    helper("bad", script)
    write(home / ".docker/config.json", {"credHelpers": {"ghcr.io": "bad"}})

    with pytest.raises(UnauthorizedError, match=words) as caught:
        find_login("ghcr.io", "a", environ)
    assert "docker-credential-bad" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_helper_that_is_not_installed_is_an_error(home: Path, environ: dict[str, str]) -> None:
    """The message names the program and the file that wants it."""
    path = write(home / ".docker/config.json", {"credsStore": "nowhere-to-be-found"})

    with pytest.raises(UnauthorizedError, match="not installed") as caught:
        find_login("ghcr.io", "a", environ)
    assert f"docker-credential-nowhere-to-be-found (from credsStore of {path})" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"ghcr.io": {"auth": "%%%"}}}'])
def test_a_damaged_file_is_named(home: Path, environ: dict[str, str], text: str) -> None:
    """A file that cannot be read is an error, not an absence of logins."""
    path = write(home / ".docker/config.json", text)

    with pytest.raises(SettingError) as caught:
        find_login("ghcr.io", "a", environ)
    assert str(path) in str(caught.value)


def test_a_named_file_must_be_there(environ: dict[str, str]) -> None:
    """REGISTRY_AUTH_FILE that names nothing is an error."""
    with pytest.raises(SettingError, match="REGISTRY_AUTH_FILE"):
        find_login("ghcr.io", "a", {**environ, "REGISTRY_AUTH_FILE": "/nowhere/auth.json"})


def test_secrets_are_in_no_repr() -> None:
    """A login can be shown: the text says who and from where, and that it has expired."""
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    login = Login.explicit(Credentials(username="ada", secret="hunter2", expires_at=past))

    assert "hunter2" not in f"{login} {login!r}"
    assert str(login) == "user 'ada' from the registry plugin, which have expired"
    assert Login.explicit(Credentials(username="", secret="t")).kind == "identity"


def test_logins_of_the_variable_come_first(home: Path, environ: dict[str, str]) -> None:
    """What a CI system puts into DOCKER_AUTH_CONFIG is stronger than files, which serve for other registries."""
    write(home / ".docker/config.json", {"auths": {name: {"auth": auth("ada", "file")} for name in ("a.io", "b.io")}})
    environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"https://a.io": {"auth": auth("ci", "variable")}}})

    assert found("a.io", "team/app", environ) == ("password", "ci", "variable")
    assert found("b.io", "team/app", environ) == ("password", "ada", "file")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_variable_is_named(environ: dict[str, str], text: str) -> None:
    """The error names it, and shows nothing of what is in it."""
    with pytest.raises(SettingError, match="at DOCKER_AUTH_CONFIG"):
        find_login("a.io", "team/app", environ | {"DOCKER_AUTH_CONFIG": text})
