"""A private folder for ``DOCKER_CONFIG``."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from prebuilt.core.errors import SettingError, StorageError
from prebuilt.core.private_docker_config import docker_config_folder, private_docker_config

_LOGIN = {"auth": "QVdTOnMzY3JldA=="}


def _users(folder: Path, config: object) -> dict[str, str]:
    own = folder / "own"
    (own / "contexts" / "meta").mkdir(parents=True)
    (own / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(own)}


def test_login_is_added(tmp_path: Path) -> None:
    """The registry's login is there beside all that the user has; the user's folder is as it was."""
    config = {"auths": {"ghcr.io": {"auth": "x"}}, "credsStore": "desktop", "currentContext": "remote"}
    environ = _users(tmp_path, config)
    variables = private_docker_config(tmp_path / "private", {"1.dkr.ecr.example": _LOGIN}, environ)
    made = json.loads((tmp_path / "private" / "config.json").read_text())
    assert made["auths"].pop("1.dkr.ecr.example") == _LOGIN
    assert made == {**config, "credHelpers": {"1.dkr.ecr.example": ""}}
    assert (tmp_path / "private" / "contexts" / "meta").is_dir()
    assert variables == {
        "DOCKER_CONFIG": str(tmp_path / "private"),
        "BUILDX_CONFIG": str(tmp_path / "own" / "buildx"),
    }
    assert json.loads((tmp_path / "own" / "config.json").read_text()) == config


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """Folder and file are for their owner only."""
    private_docker_config(tmp_path / "private", {"r.example": _LOGIN}, {"HOME": str(tmp_path)})
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "private", tmp_path / "private" / "config.json")]
    assert modes == [0o700, 0o600]


def test_other_logins_for_the_registry_give_way(tmp_path: Path) -> None:
    """A helper or an older login for the same registry is not asked; Docker Hub is filed under its old name."""
    config = {"credHelpers": {"https://index.docker.io/v1/": "ecr-login", "gcr.io": "gcloud"}}
    environ = _users(tmp_path, config)
    private_docker_config(tmp_path / "private", {"docker.io": _LOGIN}, environ)
    made = json.loads((tmp_path / "private" / "config.json").read_text())
    assert made["credHelpers"] == {"https://index.docker.io/v1/": "", "gcr.io": "gcloud"}
    assert list(made["auths"]) == ["https://index.docker.io/v1/"]


def test_place_without_room_is_said(tmp_path: Path) -> None:
    """Where the folder cannot be made, the error is of this machine's disk and names the setting for temporary files."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"Docker configuration for one build at .*/file/private: .*TMPDIR"):
        private_docker_config(tmp_path / "file" / "private", {"r.example": _LOGIN}, {"HOME": str(tmp_path)})


def test_several_logins(tmp_path: Path) -> None:
    """A build may pull from another registry than it pushes to; a folder of buildx that was set stays."""
    environ = {"HOME": str(tmp_path), "BUILDX_CONFIG": "/b"}
    logins = {"r.example": {"identitytoken": "token"}, "b.example": _LOGIN}
    variables = private_docker_config(tmp_path / "private", logins, environ)
    made = json.loads((tmp_path / "private" / "config.json").read_text())
    assert made == {"auths": logins, "credHelpers": {"r.example": "", "b.example": ""}}
    assert variables["BUILDX_CONFIG"] == "/b"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_configuration_is_said(tmp_path: Path, text: str) -> None:
    """A configuration that cannot be read is an error that names the file; nothing is made."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SettingError, match=r"config\.json"):
        private_docker_config(tmp_path / "private", {"r.example": _LOGIN}, {"DOCKER_CONFIG": str(tmp_path)})
    assert not (tmp_path / "private").exists()


def test_folder_is_dockers(tmp_path: Path) -> None:
    """The user's folder is that of the variable, else the one at home."""
    assert docker_config_folder({"DOCKER_CONFIG": "/c"}) == Path("/c")
    assert docker_config_folder({"HOME": str(tmp_path)}) == tmp_path / ".docker"


def test_the_variable_with_logins_keeps_those_of_others(tmp_path: Path) -> None:
    """DOCKER_AUTH_CONFIG is stronger than the file, so it must not have another login for the same registry."""
    logins = {"https://index.docker.io/v1/": {"auth": "x"}, "r.example": {"auth": "y"}, "ghcr.io": {"auth": "z"}}
    environ = {"HOME": str(tmp_path), "DOCKER_AUTH_CONFIG": json.dumps({"auths": logins})}
    for host, others in (
        ("docker.io", {"r.example", "ghcr.io"}),
        ("ghcr.io", {"r.example", "https://index.docker.io/v1/"}),
    ):
        variables = private_docker_config(tmp_path / host, {host: _LOGIN}, environ)
        assert json.loads(variables["DOCKER_AUTH_CONFIG"])["auths"].keys() == others
    for damaged in ("{", "[]"):
        with pytest.raises(SettingError, match="DOCKER_AUTH_CONFIG"):
            private_docker_config(tmp_path / f"x{damaged[0]}", {"r": _LOGIN}, environ | {"DOCKER_AUTH_CONFIG": damaged})
