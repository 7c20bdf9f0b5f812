"""Downloads by the standard library: by way of proxies, and with authorities of one's own."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prebuilt.core.errors import FetchError
from prebuilt.core.lock import Wheel
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.stage.url_download import UrlDownloader
from prebuilt.testing.engines.wanted import wanted_program
from prebuilt.testing.served import serving

DATA = b"a wheel\n" * 1000


@dataclass
class Server:
    """Serves DATA at every URL, and remembers which were asked for."""

    port: int = 0
    urls: list[str] = field(default_factory=list)

    @contextmanager
    def serving(self, context: ssl.SSLContext | None = None) -> Iterator[Server]:
        """Serve on loopback until the body ends."""
        urls = self.urls

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                urls.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(DATA)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that does not trust us goes away

        http = Quiet(("127.0.0.1", 0), Handler)
        if context is not None:
            http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = http.server_port
        with serving(http):
            yield self


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no proxies but those of the test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def fetched(tmp_path: Path) -> Callable[..., bytes]:
    """Give a function that downloads a URL of DATA, trusting the authorities in a file."""

    def fetch(url: str, certificates: Path | None = None) -> bytes:
        wheel = Wheel(
            name="demo",
            version="1.0",
            filename="demo.whl",
            url=url,
            sha256=hashlib.sha256(DATA).hexdigest(),
            size_bytes=len(DATA),
            role="user",
        )
        backoff, downloader = Backoff(attempts=2, base_s=0.0), UrlDownloader(certificates)
        with (
            PackageFiles(Settings({}, {}), IndexConfig(), tmp_path, backoff=backoff, downloader=downloader) as files,
            files.get(wheel) as path,
        ):
            return path.read_bytes()

    return fetch


def test_a_proxy_of_the_environment_is_used(fetched: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch):
    """Builders put the proxies of the deploying machine there."""
    with Server().serving() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert fetched("http://files.example.org/demo.whl") == DATA
        assert proxy.urls == ["http://files.example.org/demo.whl"]


def test_hosts_without_proxy_are_reached_directly(fetched: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch):
    """NO_PROXY counts."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server().serving() as server:
        assert fetched(f"http://127.0.0.1:{server.port}/demo.whl") == DATA


@pytest.mark.parametrize("url", ["ftp//nothing", "http:///demo.whl"])
def test_a_url_that_is_none_is_told(fetched: Callable[..., bytes], url: str):
    """It is not tried again for ever."""
    with pytest.raises(FetchError, match=r"download demo\.whl"):
        fetched(url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a certificate for 127.0.0.1 that is its own authority, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    openssl = wanted_program("openssl", brought_by="apt-get install openssl")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", folder / "key.pem"]
    subject = ["-subj", "/CN=a test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run(
        [openssl, "req", "-x509", *key, *subject, "-out", folder / "certificate.pem"], check=True, capture_output=True
    )
    return folder / "certificate.pem"


def test_authorities_of_the_user_are_trusted(fetched: Callable[..., bytes], certificate: Path):
    """And nobody else's word is taken for them: the error names the setting at once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with Server().serving(context) as server:
        url = f"https://127.0.0.1:{server.port}/demo.whl"
        assert fetched(url, certificate) == DATA
        with pytest.raises(FetchError, match=r"certificate verify failed.*METAFLOW_PREBUILT_CA_BUNDLE"):
            fetched(url)
        assert len(server.urls) == 1
