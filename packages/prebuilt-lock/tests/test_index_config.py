import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.lock import pip_config
from prebuilt.lock.index_config import IndexConfig

COMPANY = "https://user:s3cret@pkg.example/team/simple"


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A process environment whose home is empty, with no system-wide configuration and no keyring."""
    monkeypatch.setattr(pip_config, "_SYSTEM_FILE", tmp_path / "etc" / "pip.conf")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "XDG_CONFIG_DIRS": str(tmp_path / "etc"), "PATH": str(tmp_path / "bin")}


def load(environ: dict[str, str], tmp_path: Path) -> IndexConfig:
    """Load the configuration of a made-up machine."""
    return IndexConfig.load(Settings(environ, {}), folder=tmp_path)


def write(path: Path, text: str) -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_nothing_configured_leaves_everything_to_uv(environ: dict[str, str], tmp_path: Path):
    """Without any configuration uv runs with the process environment alone."""
    config = load(environ, tmp_path)
    assert config.uv_environment() == environ
    assert config.uv_arguments == []
    assert config.credentials_for("https://pkg.example/x.whl") is None


def test_pip_conf_reaches_uv(environ: dict[str, str], tmp_path: Path):
    """Index, extra indexes, find-links, certificate and trusted hosts of pip's file become uv's."""
    conf = tmp_path / "home" / ".config" / "pip" / "pip.conf"
    write(
        conf,
        f"[global]\nindex-url = {COMPANY}\nextra-index-url =\n  https://a.example/simple\n  https://b.example/simple\n"
        "find-links = ~/wheels\ncert = /etc/ca.pem\n[install]\ntrusted-host = a.example\n",
    )
    env = load(environ, tmp_path).uv_environment()
    assert env["UV_DEFAULT_INDEX"] == COMPANY
    assert env["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert env["UV_FIND_LINKS"] == str(tmp_path / "home" / "wheels")
    assert env["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert env["UV_INSECURE_HOST"] == "a.example"


def test_extra_index_alone_keeps_the_default_index(environ: dict[str, str], tmp_path: Path):
    """An extra index of pip's is extra for uv too: the default one stays what it was."""
    env = load({**environ, "PIP_EXTRA_INDEX_URL": COMPANY}, tmp_path).uv_environment()
    assert env["UV_INDEX"] == COMPANY
    assert "UV_DEFAULT_INDEX" not in env


@pytest.mark.parametrize(
    ("place", "section"),
    [
        ("home/.pip/pip.conf", "global"),
        ("home/.config/pip/pip.conf", "install"),
        ("venv/pip.conf", "global"),
        pytest.param(
            "etc/pip/pip.conf", "global", marks=pytest.mark.skipif(sys.platform == "darwin", reason="no XDG on macOS")
        ),
    ],
)
def test_each_place_of_pip_is_read(environ: dict[str, str], tmp_path: Path, place: str, section: str):
    """Files of the system, the user (old and new place) and the virtual environment count."""
    write(tmp_path / place, f"[{section}]\nindex-url = {COMPANY}\n")
    assert load(environ, tmp_path).indexes == (COMPANY,)


def test_later_files_and_variables_win(environ: dict[str, str], tmp_path: Path):
    """[install] wins over [global], the virtual environment over the user, PIP_* over all."""
    write(tmp_path / "home/.config/pip/pip.conf", "[install]\nindex-url = https://i\n[global]\nindex-url = https://g\n")
    assert load(environ, tmp_path).indexes == ("https://i",)
    write(tmp_path / "venv/pip.conf", "[global]\nindex-url = https://v\n")
    assert load(environ, tmp_path).indexes == ("https://v",)
    assert load({**environ, "PIP_INDEX_URL": "https://e"}, tmp_path).indexes == ("https://e",)


def test_named_pip_file_replaces_the_users(environ: dict[str, str], tmp_path: Path):
    """PIP_CONFIG_FILE keeps pip from the user's own files; the null device keeps it from all."""
    write(tmp_path / "home/.config/pip/pip.conf", "[global]\nindex-url = https://user.example\nno-index = yes\n")
    named = write(tmp_path / "named.conf", "[global]\nindex-url = https://named.example\n")
    config = load({**environ, "PIP_CONFIG_FILE": str(named)}, tmp_path)
    assert config.indexes == ("https://named.example",)
    assert not config.no_index
    assert load({**environ, "PIP_CONFIG_FILE": os.devnull}, tmp_path).indexes == ()


def test_no_index_of_pip_becomes_an_argument(environ: dict[str, str], tmp_path: Path):
    """no-index has no variable in uv, so it becomes an argument."""
    assert load({**environ, "PIP_NO_INDEX": "1"}, tmp_path).uv_arguments == ["--no-index"]


@pytest.mark.parametrize(
    "configure",
    [
        lambda root: {"UV_DEFAULT_INDEX": COMPANY},
        lambda root: {"UV_INDEX": COMPANY},
        lambda root: write(root / "home/.config/uv/uv.toml", f'[[index]]\nurl = "{COMPANY}"\ndefault = true\n') and {},
        lambda root: write(root / "pyproject.toml", f'[tool.uv.pip]\nindex-url = "{COMPANY}"\n') and {},
        lambda root: {"UV_CONFIG_FILE": str(write(root / "my.toml", f'extra-index-url = ["{COMPANY}"]\n'))},
    ],
    ids=["default variable", "index variable", "user file", "project file", "named file"],
)
def test_uvs_own_configuration_wins(
    environ: dict[str, str], tmp_path: Path, configure: Callable[[Path], dict[str, str]]
):
    """Where uv's configuration names an index, pip's indexes are not passed, and uv's credentials serve downloads."""
    config = load({**environ, "PIP_INDEX_URL": "https://pip.example/simple", **configure(tmp_path)}, tmp_path)
    assert config.indexes == ()
    assert config.uv_environment().get("UV_DEFAULT_INDEX") in {None, COMPANY}
    assert config.credentials_for("https://pkg.example/team/files/x.whl") == Credentials(
        username="user", secret="s3cret"
    )


def test_further_find_links_join_the_users_own(environ: dict[str, str], tmp_path: Path):
    """A folder that is searched besides does not displace those that the user has set."""
    config = load({**environ, "UV_FIND_LINKS": "/theirs"}, tmp_path)
    assert config.uv_environment(find_links=[Path("/ours")])["UV_FIND_LINKS"] == "/ours,/theirs"


def test_credentials_of_the_closest_index(environ: dict[str, str], tmp_path: Path):
    """Of several indexes on one host, the one with the longest common path gives the credentials."""
    environ["PIP_EXTRA_INDEX_URL"] = "https://a:1@pkg.example/one/simple https://b:2@pkg.example/two/simple"
    config = load(environ, tmp_path)
    assert config.credentials_for("https://pkg.example/two/files/x.whl") == Credentials(username="b", secret="2")
    assert config.credentials_for("https://pkg.example:8443/two/x.whl") is None
    assert config.credentials_for("http://pkg.example/two/x.whl") is None


@pytest.mark.parametrize("variable", ["UV_INDEX", "UV_DEFAULT_INDEX"])
def test_credentials_of_a_named_index(environ: dict[str, str], tmp_path: Path, variable: str):
    """UV_INDEX_<NAME>_USERNAME and _PASSWORD are the credentials of the index of that name."""
    environ |= {variable: "my-team=https://pkg.example/simple"}
    environ |= {"UV_INDEX_MY_TEAM_USERNAME": "me", "UV_INDEX_MY_TEAM_PASSWORD": "p/w"}
    assert load(environ, tmp_path).credentials_for("https://pkg.example/f") == Credentials(username="me", secret="p/w")


def test_netrc(environ: dict[str, str], tmp_path: Path):
    """A host's entry in netrc is used where no index says more."""
    write(tmp_path / "home/.netrc", "machine pkg.example login me password pw\n").chmod(0o600)
    assert load(environ, tmp_path).credentials_for("https://pkg.example/f") == Credentials(username="me", secret="pw")
    assert load(environ, tmp_path).credentials_for("https://else.example/f") is None


def test_broken_netrc_is_logged_and_skipped(environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A netrc that cannot be read keeps nobody from a public index."""
    write(tmp_path / "named", "machine pkg.example bogus\n")
    assert (
        load({**environ, "NETRC": str(tmp_path / "named")}, tmp_path).credentials_for("https://pkg.example/f") is None
    )
    assert "is not used" in caplog.text


def test_keyring_is_asked_for_a_configured_host(environ: dict[str, str], tmp_path: Path):
    """The keyring command gives the password of an index that has a user name only."""
    keyring = write(tmp_path / "bin/keyring", '#!/bin/sh\n[ "$1 $3" = "get oauth" ] && echo "token for $2"\n')
    keyring.chmod(0o755)
    config = load({**environ, "PIP_INDEX_URL": "https://oauth@pkg.example/simple"}, tmp_path)
    assert config.uv_environment()["UV_KEYRING_PROVIDER"] == "subprocess"
    found = config.credentials_for("https://pkg.example/files/x.whl")
    assert found == Credentials(username="oauth", secret="token for https://pkg.example/simple")
    disabled = load({**environ, "PIP_KEYRING_PROVIDER": "disabled"}, tmp_path)
    assert not disabled.keyring


def test_secrets_stay_out_of_the_repr(environ: dict[str, str], tmp_path: Path):
    """A config can be logged."""
    config = load({**environ, "PIP_INDEX_URL": COMPANY, "UV_INDEX_X_PASSWORD": "hidden"}, tmp_path)
    assert "s3cret" not in repr(config)
    assert "hidden" not in repr(config)


@pytest.mark.parametrize(("name", "text"), [("home/.pip/pip.conf", "no section\n"), ("uv.toml", "not = = toml")])
def test_malformed_file_is_named(environ: dict[str, str], tmp_path: Path, name: str, text: str):
    """A configuration file that cannot be read is named in the error."""
    path = write(tmp_path / name, text)
    with pytest.raises(SettingError) as caught:
        load(environ, tmp_path)
    assert str(path) in str(caught.value)


def test_insecure_host_by_name_or_with_port(environ: dict[str, str], tmp_path: Path):
    """A trusted host counts with or without its port."""
    config = load({**environ, "PIP_TRUSTED_HOST": "a.example b.example:8443"}, tmp_path)
    assert config.is_insecure("https://a.example:1/x")
    assert config.is_insecure("https://b.example:8443/x")
    assert not config.is_insecure("https://b.example/x")


def test_certificates(environ: dict[str, str], tmp_path: Path):
    """SSL_CERT_FILE wins over pip's cert, that over REQUESTS_CA_BUNDLE; a folder there is left to the defaults."""
    assert load({**environ, "REQUESTS_CA_BUNDLE": "/r.pem"}, tmp_path).ca_bundle == Path("/r.pem")
    assert load({**environ, "REQUESTS_CA_BUNDLE": "/r.pem", "PIP_CERT": "/p.pem"}, tmp_path).ca_bundle == Path("/p.pem")
    assert load({**environ, "PIP_CERT": "/p.pem", "SSL_CERT_FILE": "/s.pem"}, tmp_path).ca_bundle == Path("/s.pem")
    assert load({**environ, "REQUESTS_CA_BUNDLE": str(tmp_path)}, tmp_path).ca_bundle is None
    assert load(environ, tmp_path).trust() is True


def test_missing_certificate_file_is_named(environ: dict[str, str], tmp_path: Path):
    """A certificate file that is not there is an error that names it, not one of every download."""
    with pytest.raises(SettingError, match=r"/nowhere\.pem"):
        load({**environ, "SSL_CERT_FILE": "/nowhere.pem"}, tmp_path).trust()


def test_proxy_of_pip(environ: dict[str, str], tmp_path: Path):
    """A proxy of pip's serves uv and downloads, unless the environment names one."""
    config = load({**environ, "PIP_PROXY": "http://proxy.example:3128"}, tmp_path)
    assert config.proxy == config.uv_environment()["ALL_PROXY"] == "http://proxy.example:3128"
    assert load({**environ, "PIP_PROXY": "http://a.example", "https_proxy": "http://b.example"}, tmp_path).proxy is None
