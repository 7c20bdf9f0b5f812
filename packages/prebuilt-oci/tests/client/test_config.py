from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.config import NetworkConfig


def config(tmp_path: Path, **environ: str) -> NetworkConfig:
    """Read the configuration from these variables alone."""
    return NetworkConfig.from_settings(Settings({"HOME": str(tmp_path), **environ}, {}))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("ghcr.io", "https://ghcr.io"),
        ("registry.example.org:5000", "https://registry.example.org:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.1.2.3", "http://127.1.2.3"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("localhost.example.org", "https://localhost.example.org"),
        ("plain.example.org:80", "http://plain.example.org:80"),
        ("any.example.org:81", "http://any.example.org:81"),
        ("plain.example.org:81", "https://plain.example.org:81"),
    ],
)
def test_only_loopback_and_named_hosts_are_spoken_to_plainly(tmp_path: Path, host: str, url: str) -> None:
    """TLS is the rule; METAFLOW_PREBUILT_INSECURE_REGISTRIES names exceptions, with or without a port."""
    insecure = "plain.example.org:80, any.example.org"
    assert config(tmp_path, METAFLOW_PREBUILT_INSECURE_REGISTRIES=insecure).base_url(host) == url


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("192.168.1.20:5000", "http://192.168.1.20:5000"),
        ("10.1.2.3:5000/team", "http://10.1.2.3:5000"),
        ("172.20.0.2:5000", "http://172.20.0.2:5000"),
        ("[fd00::1]:5000", "http://[fd00::1]:5000"),
        ("registry:5000", "http://registry:5000"),
        ("203.0.114.7:5000", "https://203.0.114.7:5000"),
        ("registry.example.org:5000", "https://registry.example.org:5000"),
    ],
)
def test_private_addresses_of_the_registry_local_are_spoken_to_plainly(tmp_path: Path, address: str, url: str) -> None:
    """Where the registry `local` is named by a private address, push and pull alike, TLS is not expected; elsewhere it is."""
    host = address.partition("/")[0]
    assert config(tmp_path, METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH=address).base_url(host) == url
    assert config(tmp_path, METAFLOW_PREBUILT_LOCAL_REGISTRY_PULL=address).base_url(host) == url
    assert config(tmp_path).base_url(host) == f"https://{host}"
    (tmp_path / ".config/docker/certs.d" / host).mkdir(parents=True)
    assert config(tmp_path, METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH=address).base_url(host) == f"https://{host}"


def test_loopback_with_certificates_is_spoken_to_over_tls(tmp_path: Path) -> None:
    """A folder in certs.d says that the host has TLS; its files are trusted beside the others."""
    folder = tmp_path / ".config/docker/certs.d/localhost:5000"
    folder.mkdir(parents=True)
    for name in ("ca.crt", "client.cert", "client.key"):
        (folder / name).touch()

    found = config(tmp_path)

    assert found.base_url("localhost:5000") == "https://localhost:5000"
    assert found.trust("localhost:5000").extra_ca_files == (folder / "ca.crt",)
    assert found.trust("localhost:5000").client_certificate == (folder / "client.cert", folder / "client.key")
    assert found.trust("localhost:5001").extra_ca_files == ()


def test_certificates_that_are_not_ours_to_read_are_not_for_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /etc/docker is closed to all but root, others reach registries all the same, with the folders that they may read."""
    closed, readable = (tmp_path / f".config/{name}/certs.d/registry.example" for name in ("docker", "containers"))
    for folder in (closed, readable):
        folder.mkdir(parents=True)
        (folder / "ca.crt").touch()
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)  # root, who may run this, may read everything
    assert config(tmp_path).trust("registry.example").extra_ca_files == (readable / "ca.crt",)


def test_the_first_setting_for_authorities_decides(tmp_path: Path) -> None:
    """Ours is before OpenSSL's, which are before that of requests."""
    ours, openssl, requests = (tmp_path / name for name in ("ours.pem", "openssl.pem", "requests.pem"))
    for path in (ours, openssl, requests):
        path.touch()
    folder = tmp_path / "hashed"
    folder.mkdir()
    environ = {"REQUESTS_CA_BUNDLE": str(requests)}
    assert config(tmp_path, **environ).ca_file == requests

    environ |= {"SSL_CERT_FILE": str(openssl), "SSL_CERT_DIR": str(folder)}
    found = config(tmp_path, **environ)
    assert (found.ca_file, found.ca_folder) == (openssl, folder)

    found = config(tmp_path, **environ, METAFLOW_PREBUILT_CA_BUNDLE=str(ours))
    assert (found.ca_file, found.ca_folder) == (ours, None)


@pytest.mark.parametrize("name", ["METAFLOW_PREBUILT_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    """Trust is never silently the system's instead."""
    with pytest.raises(SettingError, match=f"{name}.*/nowhere.pem"):
        config(tmp_path, **{name: "/nowhere.pem"})


def test_an_insecure_registry_is_a_host(tmp_path: Path) -> None:
    """A URL is refused with a word on what to write."""
    with pytest.raises(SettingError, match="without a scheme"):
        config(tmp_path, METAFLOW_PREBUILT_INSECURE_REGISTRIES="http://registry.example.org")
