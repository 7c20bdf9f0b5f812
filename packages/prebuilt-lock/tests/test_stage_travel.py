"""Which packages travel: those that another machine could not fetch as this user can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.lock import CondaPackage, Wheel
from prebuilt.core.settings import Settings
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.stage.travel import TravelRules

PUBLIC = "https://files.example.org/x/demo-1.0-py3-none-any.whl"
CHANNEL = "https://conda.example.org/public/linux-64/demo-1.0-0.conda"


def wheel(url: str) -> Wheel:
    """Return a wheel that is at `url`."""
    return Wheel(
        name="demo",
        version="1.0",
        filename="demo-1.0-py3-none-any.whl",
        url=url,
        sha256="0" * 64,
        size_bytes=1,
        role="user",
    )


def conda(url: str) -> CondaPackage:
    """Return a conda package that is at `url`."""
    return CondaPackage(
        name="demo",
        version="1.0",
        build="0",
        build_number=0,
        subdir="linux-64",
        url=url,
        sha256="0" * 64,
        size_bytes=1,
        role="user",
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty home, where rattler and others look for configuration."""
    for name, value in {"HOME": tmp_path, "XDG_CONFIG_HOME": tmp_path / "config"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("RATTLER_AUTH_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def rules(home: Path) -> Any:
    """Give a function that makes rules from an environment and fields of the index configuration."""

    def make(environ: dict[str, str] | None = None, **config: Any) -> TravelRules:
        environ = environ or {}
        return TravelRules(
            settings=Settings(environ, {}), index_config=IndexConfig(environ=environ, home=home, **config)
        )

    return make


@pytest.mark.parametrize("package", [wheel(PUBLIC), conda(CHANNEL)], ids=["wheel", "conda"])
def test_what_everybody_can_fetch_does_not(rules: Any, package: Any):
    """The context stays small."""
    assert not rules().travels(package)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///wheels/demo.whl",
        "http://127.0.0.1:8080/demo.whl",
        "http://localhost/demo.whl",
        "https://[::1]/demo.whl",
    ],
)
def test_wheels_of_this_machine_do(rules: Any, url: str):
    """Built here, lying here, or served here."""
    assert rules().travels(wheel(url))


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/linux-64/demo-1.0-0.conda", "oci://host/demo", "gcs://bucket/demo", "file:///channel/demo.conda"],
)
def test_conda_packages_that_only_rattler_can_fetch_do(rules: Any, url: str):
    """Build stages speak HTTP alone."""
    assert rules().travels(conda(url))


@pytest.mark.parametrize(
    "config",
    [
        {"known": ("https://user:secret@files.example.org/simple",)},
        {"insecure_hosts": ("files.example.org",)},
        {"proxy": "http://proxy.example.org:3128"},
        {"client_cert": Path("client.pem")},
    ],
    ids=lambda config: next(iter(config)),
)
def test_wheels_that_this_user_fetches_in_a_way_of_their_own_do(rules: Any, config: dict[str, Any]):
    """With a password, without regard to certificates, by pip's proxy, with a client's certificate."""
    assert rules(**config).travels(wheel(PUBLIC))
    assert not rules(**config).travels(conda(CHANNEL))


def test_credentials_of_another_host_do_not_count(rules: Any):
    """A private index beside the public one sends its own packages alone."""
    two = rules(known=("https://user:secret@private.example.org/simple",))
    assert two.travels(wheel("https://private.example.org/files/demo.whl"))
    assert not two.travels(wheel(PUBLIC))


def test_netrc_counts_for_both_kinds(rules: Any, home: Path):
    """It names hosts, whoever asks."""
    netrc = home / ".netrc"
    netrc.write_text("machine files.example.org login a password b\nmachine conda.example.org login a password b\n")
    netrc.chmod(0o600)
    assert rules().travels(wheel(PUBLIC))
    assert rules().travels(conda(CHANNEL))


@pytest.mark.parametrize("name", ["conda.example.org", "*.example.org", "https://conda.example.org", "example.org"])
def test_hosts_that_rattler_has_credentials_for(rules: Any, home: Path, name: str):
    """As its file of credentials names them."""
    file = home / "credentials.json"
    file.write_text(json.dumps({name: {"BearerToken": "secret"}}))
    assert rules({"RATTLER_AUTH_FILE": str(file)}).travels(conda(CHANNEL)) == (name != "example.org")


def test_a_file_of_credentials_that_is_none_is_left_to_rattler(rules: Any, home: Path):
    """It says what is wrong, when it is asked for a package."""
    (home / ".rattler").mkdir()
    (home / ".rattler" / "credentials.json").write_text("{")
    assert not rules().travels(conda(CHANNEL))


@pytest.mark.parametrize(
    "text",
    [
        '[mirrors]\n"https://conda.example.org/public" = ["https://mirror.example.org/public"]\n',
        '[proxy-config]\nhttps = "http://proxy.example.org:3128"\n',
        "tls-no-verify = true\n",
    ],
    ids=["mirrors", "proxy", "tls"],
)
def test_channels_that_rattler_is_configured_for(rules: Any, home: Path, text: str):
    """A build stage has neither the mirrors nor the proxy."""
    config = home / "config" / "rattler" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    assert rules().travels(conda(CHANNEL))


@pytest.mark.parametrize(
    ("environ", "travels"),
    [
        ({"METAFLOW_PREBUILT_SEND_PACKAGES": "1"}, True),
        ({"HTTPS_PROXY": "http://127.0.0.1:3128"}, True),
        ({"http_proxy": "localhost:3128"}, True),
        ({"HTTPS_PROXY": "http://proxy.example.org:3128", "NO_PROXY": "localhost"}, False),
    ],
)
def test_everything_travels_if_asked_to_or_if_the_proxy_is_here(rules: Any, environ: dict[str, str], travels: bool):  # noqa: FBT001 - a parameter of the test
    """A proxy on loopback serves this machine alone; another one is told to the build."""
    assert rules(environ).travels(wheel(PUBLIC)) == travels
    assert rules(environ).travels(conda(CHANNEL)) == travels


def test_a_keyring_is_asked_once_for_each_host(rules: Any, home: Path, monkeypatch: pytest.MonkeyPatch):
    """It may be slow, or wait for a person."""
    script = home / "keyring"
    script.write_text(f"#!/bin/sh\necho asked >> {home}/asked\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    asking = rules(keyring=True, known=("https://files.example.org/simple",))
    for number in range(3):
        assert not asking.travels(wheel(f"https://files.example.org/{number}/demo.whl"))
    assert len((home / "asked").read_text().splitlines()) == 2  # the index, then its host
