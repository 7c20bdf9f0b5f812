"""A company's own certificate authority: one setting serves indexes and channels, resolving and downloading."""

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prebuilt.core.errors import PrebuiltError, SettingError
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.resolver import LockResolver
from prebuilt.testing.certificate import make_signed_certificate
from prebuilt.testing.conda_channel import build_channel, serve_channel
from prebuilt.testing.conda_package import CondaPackageSpec, text_file
from prebuilt.testing.python_index import PackageIndex, make_wheel

BARE = Target(platform=Platform.parse("linux/amd64"), glibc="2.36")


@dataclass(frozen=True)
class Company:
    """A channel and an index behind TLS, and the authority that vouches for both."""

    channel: str
    index: str
    authority: Path


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    """Serve what a mixed step needs."""
    authority = tmp_path / "authority.pem"
    tls = make_signed_certificate(authority, "127.0.0.1")
    python = CondaPackageSpec(name="python", version="3.11.9", files=(text_file("bin/python3.11", ""),))
    channel = build_channel(tmp_path / "channel", [python])
    index = PackageIndex(tls=tls)
    index.add(make_wheel(tmp_path, "fine", "1.0"))
    with serve_channel(channel, tls=tls) as served, index.serving():
        yield Company(served.url, index.url, authority)


@pytest.fixture
def settings(tmp_path: Path, company: Company, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine that was told of the index alone."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "UV_DEFAULT_INDEX": company.index,
        "UV_HTTP_RETRIES": "0",
        "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache"),
    }


def bake(environ: dict[str, str], company: Company, folder: Path) -> None:
    """Resolve a mixed step and download its packages."""
    settings = Settings(environ, {})
    asked = Requirements(python="3.11", target=BARE, pypi={"fine": "1.0"}, channels=(company.channel,))
    lock = LockResolver(settings, folder=folder).resolve(asked)
    with PackageFiles(settings, IndexConfig.load(settings, folder=folder), cache_dir(settings)) as files:
        for package in lock.packages:
            with files.get(package):
                pass


@pytest.mark.parametrize("name", ["METAFLOW_PREBUILT_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"])
def test_each_setting_serves_both(settings: dict[str, str], company: Company, tmp_path: Path, name: str):
    """Whichever names the authority, index and channel are trusted, and the process's environment stays as it was."""
    bake({**settings, name: str(company.authority)}, company, tmp_path)
    assert "SSL_CERT_FILE" not in os.environ


def test_ours_is_trusted_beside_the_others(settings: dict[str, str], company: Company, tmp_path: Path):
    """Who names the authority of a registry keeps the one of the index."""
    other = tmp_path / "other.pem"
    make_signed_certificate(other, "127.0.0.1")
    named = {"SSL_CERT_FILE": str(company.authority), "METAFLOW_PREBUILT_CA_BUNDLE": str(other)}
    bake({**settings, **named}, company, tmp_path)


def test_the_systems_stay_trusted(settings: dict[str, str], company: Company):
    """Ours does not take their place: indexes of the world are reached with them."""
    config = IndexConfig.load(Settings({**settings, "METAFLOW_PREBUILT_CA_BUNDLE": str(company.authority)}, {}))
    trust = config.trust()
    assert isinstance(trust, ssl.SSLContext)
    assert len(trust.get_ca_certs()) >= 1
    assert config.named_authorities == (company.authority,)


def test_a_folder_of_ours(settings: dict[str, str], company: Company, tmp_path: Path):
    """All its files count."""
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / "one.pem").write_bytes(company.authority.read_bytes())
    bake({**settings, "METAFLOW_PREBUILT_CA_BUNDLE": str(folder)}, company, tmp_path)


def test_nobody_vouches(settings: dict[str, str], company: Company, tmp_path: Path):
    """Without any of them the server is not trusted."""
    with pytest.raises(PrebuiltError, match=r"(?i)certificate|UnknownIssuer"):
        bake(settings, company, tmp_path)


def test_ours_is_not_there(settings: dict[str, str]):
    """It is named, before anything is asked."""
    with pytest.raises(SettingError, match=r"METAFLOW_PREBUILT_CA_BUNDLE at /nowhere\.pem: no such file"):
        IndexConfig.load(Settings({**settings, "METAFLOW_PREBUILT_CA_BUNDLE": "/nowhere.pem"}, {}))
