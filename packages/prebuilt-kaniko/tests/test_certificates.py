"""Authorities that go along with a build."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.core.settings import Settings
from prebuilt.kaniko.certificates import Authorities, authorities
from prebuilt.oci.config import NetworkConfig


def _pem(word: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{word}\n-----END CERTIFICATE-----"


def _found(tmp_path: Path, *hosts: str, **settings: str) -> Authorities:
    environ = {"HOME": str(tmp_path), **settings}
    return authorities(NetworkConfig.from_settings(Settings(environ, {})), set(hosts))


def test_nothing_goes_along_where_nothing_is_configured(tmp_path: Path) -> None:
    """Kaniko's image has authorities of its own."""
    assert _found(tmp_path, "r.example") == Authorities()


@pytest.mark.parametrize("name", ["METAFLOW_PREBUILT_CA_BUNDLE", "SSL_CERT_FILE"])
def test_bundle_vouches_for_every_registry_with_tls(tmp_path: Path, name: str) -> None:
    """Whoever names it, and nothing goes along but certificates."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# a comment\n{_pem('one')}\nkey\n{_pem('two')}")
    found = _found(tmp_path, "r.example", "docker.io", "127.0.0.1:5000", **{name: str(bundle)})
    assert found.hosts == ("docker.io", "r.example")
    assert found.data.decode() == f"{_pem('one')}\n{_pem('two')}\n"


def test_folders_of_docker_vouch_for_their_host(tmp_path: Path) -> None:
    """An authority that is in several files goes along once."""
    folder, bundle = tmp_path / ".config/docker/certs.d/r.example:5000", tmp_path / "authorities"
    folder.mkdir(parents=True)
    bundle.mkdir()
    folder.joinpath("ca.crt").write_text(_pem("one"))
    assert _found(tmp_path, "r.example:5000", "docker.io").hosts == ("r.example:5000",)
    for file in "a.pem", "b.pem":
        bundle.joinpath(file).write_text(_pem("one"))
    found = _found(tmp_path, "r.example:5000", "docker.io", METAFLOW_PREBUILT_CA_BUNDLE=str(bundle))
    assert found.hosts == ("docker.io", "r.example:5000")
    assert found.data.decode() == f"{_pem('one')}\n"
