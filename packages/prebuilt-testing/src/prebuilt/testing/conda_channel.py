"""Conda channels on this machine: a folder of packages, and a server on loopback for it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prebuilt.testing.conda_package import CondaPackageSpec, build_package
from prebuilt.testing.served import serving


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaChannel:
    """A channel: a folder with a folder for each subdir, indexed."""

    folder: Path

    @property
    def url(self) -> str:
        """The channel as ``file:///…``."""
        return self.folder.absolute().as_uri()

    @property
    def packages(self) -> list[Path]:
        """The package files, by path."""
        return sorted(self.folder.glob("*/*.conda"))

    def package(self, name: str, version: str | None = None) -> Path:
        """Return the file of a package: of its only version, or of `version`.

        Raises:
            LookupError: There is none, or there are several.
        """
        wanted = f"{name}-{version}-" if version else f"{name}-"
        dashes = name.count("-") + 2
        found = [path for path in self.packages if path.name.startswith(wanted) and path.name.count("-") == dashes]
        if len(found) != 1:
            names = [path.name for path in found]
            raise LookupError(f"{len(found)} packages are called {name} {version or ''}: {names}")
        return found[0]

    def add(self, *packages: CondaPackageSpec) -> None:
        """Make packages, in place of equal ones that were there, and index the channel anew."""
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="conda-package") as pool:
            for _ in pool.map(lambda spec: build_package(spec, self.folder), packages):
                pass
        self.index()

    def index(self) -> None:
        """Write ``repodata.json`` of every subdir anew, from what the package files say of themselves."""
        from rattler.index import index_fs

        for subdir in ("noarch", "linux-64", "linux-aarch64"):  # a solver asks for noarch in any case
            (self.folder / subdir).mkdir(parents=True, exist_ok=True)
        # Without shards: a server that is no object store answers 304 to rattler's conditional requests for them.
        asyncio.run(index_fs(self.folder, write_shards=False, force=True))


def build_channel(folder: Path, packages: Iterable[CondaPackageSpec]) -> CondaChannel:
    """Return a channel in `folder` that has `packages`, and whatever was there."""
    channel = CondaChannel(folder=folder)
    channel.add(*packages)
    return channel


@dataclass(slots=True)
class ServedChannel:
    """A channel behind HTTP.

    Attributes:
        url: Where it is, without credentials.
        requests: What was asked for, ``GET /linux-64/repodata.json``, in order.
        failing_with: A status with which to answer everything from now on; None to serve.
    """

    channel: CondaChannel
    url: str
    user: str | None = None
    password: str | None = None
    token: str | None = None
    requests: list[str] = field(default_factory=list)
    failing_with: int | None = None

    @property
    def url_with_credentials(self) -> str:
        """The URL as a user would write it who has what the server wants to see."""
        scheme, _, rest = self.url.partition("://")
        if self.user is not None:
            return f"{scheme}://{self.user}:{self.password}@{rest}"
        host, _, path = rest.partition("/")
        return f"{scheme}://{host}/t/{self.token}/{path}" if self.token else self.url

    def requests_for(self, text: str) -> list[str]:
        """Return the requests whose path has `text` in it."""
        return [request for request in self.requests if text in request]

    def find(self, path: str, authorization: str | None) -> Path | int:
        """Return the file that a request asks for, or the status that says why there is none."""
        if self.failing_with is not None:
            return self.failing_with
        is_known = self.user is None and self.token is None
        if self.token is not None and path.startswith(f"/t/{self.token}/"):
            path, is_known = path.removeprefix(f"/t/{self.token}"), True
        if self.user is not None:
            is_known = authorization == f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"
        if not is_known:
            return 401
        file = (self.channel.folder / path.removeprefix("/channel/")).resolve()
        return file if file.is_file() and file.is_relative_to(self.channel.folder.resolve()) else 404


@contextlib.contextmanager
def serve_channel(
    channel: CondaChannel,
    *,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[ServedChannel]:
    """Serve `channel` on loopback while the body runs: to everybody, or to who shows a password or a token.

    With `tls`, by HTTPS. A token is part of the path, as conda's clients write it: ``/t/<token>/channel/…``.
    """
    served = ServedChannel(channel, "", user, password, token)
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    served.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}/channel"
    with serving(server):
        yield served


class _Handler(BaseHTTPRequestHandler):
    """Answers for one channel, always in full: without a date no client asks whether something changed since."""

    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds until an idle connection is closed; clients in Rust keep theirs for longer than a test
    served: ServedChannel

    def do_GET(self) -> None:
        """Answer a GET or HEAD."""
        path = self.path.partition("?")[0]
        self.served.requests.append(f"{self.command} {path}")
        found = self.served.find(path, self.headers.get("Authorization"))
        body = found.read_bytes() if isinstance(found, Path) else b""
        self.send_response(200 if isinstance(found, Path) else found)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream")
        if found == 401:  # noqa: PLR2004 - HTTP's number
            self.send_header("WWW-Authenticate", 'Basic realm="channel"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet: requests are in the channel's own log."""
