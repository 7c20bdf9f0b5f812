from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest

from prebuilt.core.errors import RegistryUnreachableError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.client import RegistryRepository
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.served import serving_http
from prebuilt.testing.socks_proxy import socks_proxy

TLS = Path(__file__).parent / "tls"


@pytest.fixture
def tls_registry() -> Iterator[InMemoryRegistry]:
    """A registry that speaks TLS, with a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    with InMemoryRegistry(tls=context) as server:
        yield server


def certificate_folder(home: Path, host: str, data: bytes) -> Path:
    """Say in the home folder's certs.d that `host` has TLS."""
    path = home / ".config/docker/certs.d" / host / "ca.crt"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_dockers_certificate_folder_is_trusted(
    tls_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], home: Path
) -> None:
    """A registry whose CA is in certs.d is reached over TLS."""
    certificate_folder(home, tls_registry.host, (TLS / "cert.pem").read_bytes())

    assert open_repository(tls_registry.repository("team/app")).resolve("1") is None
    assert tls_registry.count("HEAD") == 1


def test_a_bundle_from_the_settings_is_trusted(
    tls_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], home: Path
) -> None:
    """METAFLOW_PREBUILT_CA_BUNDLE takes the place of the system's authorities."""
    certificate_folder(home, tls_registry.host, b"").unlink()
    environ = {"METAFLOW_PREBUILT_CA_BUNDLE": str(TLS / "cert.pem")}

    assert open_repository(tls_registry.repository("team/app"), environ=environ).resolve("1") is None


def test_an_untrusted_certificate_is_refused_at_once(
    tls_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], home: Path, waits_s: list[float]
) -> None:
    """No other try, no plain HTTP instead; the message says where to put the CA."""
    certificate_folder(home, tls_registry.host, b"").unlink()

    with pytest.raises(RegistryUnreachableError, match=r"TLS: .*METAFLOW_PREBUILT_CA_BUNDLE.*certs\.d"):
        open_repository(tls_registry.repository("team/app")).resolve("1")
    assert waits_s == []
    assert tls_registry.count() == 0


def test_tls_to_a_plain_registry_is_no_fallback(
    registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], home: Path
) -> None:
    """A registry that turns out not to speak TLS is an error."""
    certificate_folder(home, registry.host, b"").unlink()

    with pytest.raises(RegistryUnreachableError):
        open_repository(registry.repository("team/app")).resolve("1")
    assert registry.count("*", "v2") == 0


def test_a_damaged_bundle_is_named(
    tls_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], home: Path
) -> None:
    """A file without certificates is an error with its name."""
    path = certificate_folder(home, tls_registry.host, b"no certificate")

    with pytest.raises(SettingError, match=str(path)):
        open_repository(tls_registry.repository("team/app")).resolve("1")


def test_a_client_certificate_that_is_none_is_named(
    home: Path, open_repository: Callable[..., RegistryRepository]
) -> None:
    """It is not taken for one of an authority; a key may be readable for root alone."""
    folder = home / ".config/docker/certs.d/registry.example"
    folder.mkdir(parents=True)
    for name in ("client.cert", "client.key"):
        (folder / name).write_text("no certificate")
    with pytest.raises(SettingError, match=r"certs\.d at .*/client\.cert, .*/client\.key"):
        open_repository("registry.example/team/app").resolve("1")


class Proxy(BaseHTTPRequestHandler):
    """Answers in place of every host."""

    asked: list[str]

    def do_HEAD(self) -> None:
        """Know nothing."""
        self.asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A proxy that the environment names; what it is asked for."""
    Proxy.asked = []
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving_http(Proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("http_proxy", url)
        yield Proxy.asked


def test_the_environments_proxy_is_used(proxy: list[str], open_repository: Callable[..., RegistryRepository]) -> None:
    """Requests to other hosts go through HTTP_PROXY."""
    environ = {"METAFLOW_PREBUILT_INSECURE_REGISTRIES": "registry.example.org"}

    assert open_repository("registry.example.org/team/app", environ=environ).resolve("1") is None
    assert proxy == ["http://registry.example.org/v2/team/app/manifests/1"]


def test_a_socks_proxy_is_used(
    registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALL_PROXY may name one; it is told the name, since names of the other side may mean nothing here."""
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    environ = {"METAFLOW_PREBUILT_INSECURE_REGISTRIES": "registry.example.org"}
    with socks_proxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        proxy.servers["registry.example.org:80"] = registry.host

        assert open_repository("registry.example.org/team/app", environ=environ).resolve("1") is None
        assert proxy.asked == ["registry.example.org:80"]
    assert registry.count("HEAD") == 1


def test_a_proxy_of_an_unknown_kind_is_named(
    open_repository: Callable[..., RegistryRepository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message shows what is set, and not its password."""
    monkeypatch.setenv("ALL_PROXY", "socks4://user:s3cr3t@proxy.example.org:1080")
    with pytest.raises(SettingError, match=r"ALL_PROXY.*socks4.*socks5") as raised:
        open_repository("registry.example.org/team/app").resolve("1")
    assert "s3cr3t" not in str(raised.value)


def test_loopback_needs_no_proxy(
    proxy: list[str], registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
) -> None:
    """Requests to this machine never go through a proxy."""
    assert open_repository(registry.repository("team/app")).resolve("1") is None
    assert proxy == []


def test_connections_are_kept(registry: InMemoryRegistry, repository: RegistryRepository) -> None:
    """Many requests of one thread use one connection."""
    for _ in range(5):
        repository.resolve("1")
    assert registry.connection_count == 1


def test_docker_hub_is_asked_where_its_api_is() -> None:
    """docker.io in a reference means another host on the wire."""
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(f"{request.method} {request.url}")
        return httpx2.Response(404)

    repository = RegistryRepository("python", settings=Settings({}, {}), transport=httpx2.MockTransport(answer))

    assert repository.resolve("3.11-slim") is None
    assert asked == ["HEAD https://registry-1.docker.io/v2/library/python/manifests/3.11-slim"]
