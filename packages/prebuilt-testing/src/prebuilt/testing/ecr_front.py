"""The doorkeeper of a real registry: under ECR's host names, over TLS, for those who have a password that ECR's API gave."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prebuilt.testing.amazon_ecr import Passwords
from prebuilt.testing.served import serving

_PIECE_BYTES = 1 << 16
_REPOSITORY = re.compile(r"/v2/(?P<name>.+?)/(?:blobs|manifests|tags|referrers)/")
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "authorization", "content-length"})
"""Headers that end here: they are about the connection, or for us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ECRFront:
    """Who is let through, and to where.

    Attributes:
        registry: ``host:port`` of the registry behind, which speaks plain HTTP.
        passwords: Those that open it.
        has_repository: Says whether a repository was made at a host; ECR makes none by itself.
    """

    registry: str
    passwords: Passwords
    has_repository: Callable[[str, str], bool]

    @contextlib.contextmanager
    def serving(self, tls: ssl.SSLContext, port: int) -> Iterator[None]:
        """Serve on `port` of 127.0.0.1."""
        handler = type("Handler", (_Handler,), {"front": self})
        with serving(_Server(port, tls, handler)):
            yield


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, port: int, tls: ssl.SSLContext, handler: type[BaseHTTPRequestHandler]) -> None:
        self._tls = tls
        super().__init__(("127.0.0.1", port), handler)

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the standard library has it
        # Here, in the connection's own thread: a client that is slow with its handshake holds up nobody.
        with self._tls.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the standard library has it
        """Say nothing: clients go away as they like."""


class _Handler(BaseHTTPRequestHandler):
    front: ECRFront
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing."""

    def _serve(self) -> None:
        asked = _REPOSITORY.match(self.path)
        name = asked["name"] if asked else ""
        shown = self.headers.get("Authorization")
        if not self.front.passwords.opens(self.headers["Host"], shown):
            self._refuse(self.front.passwords.refuses_with if shown else 401, "DENIED" if shown else "UNAUTHORIZED")
        elif name and not self.front.has_repository(name, self.headers["Host"]):
            self._refuse(404, "NAME_UNKNOWN")
        else:
            self._pass_on()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - names in the standard library

    def _refuse(self, status: int, code: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": "the test's ECR refuses this"}]}).encode()
        self.close_connection = True  # what the client still sends is not read
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if status == http.HTTPStatus.UNAUTHORIZED:
            realm = f"https://{self.headers['Host']}/"
            self.send_header("WWW-Authenticate", f'Basic realm="{realm}",service="ecr.amazonaws.com"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _pass_on(self) -> None:
        behind = http.client.HTTPConnection(self.front.registry)
        with contextlib.closing(behind):
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for header, value in self.headers.items():
                if header.lower() not in _HOP:
                    behind.putheader(header, value)
            behind.putheader("X-Forwarded-Proto", "https")  # for the addresses of uploads, with the Host of the client
            self._send_body(behind)
            self._answer(behind.getresponse())

    def _send_body(self, behind: http.client.HTTPConnection) -> None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            behind.putheader("Transfer-Encoding", "chunked")
            behind.endheaders(self._chunks(), encode_chunked=True)
            return
        length = int(self.headers.get("Content-Length") or 0)
        if self.command not in {"GET", "HEAD"}:
            behind.putheader("Content-Length", str(length))
        behind.endheaders()
        while length > 0 and (piece := self.rfile.read(min(length, _PIECE_BYTES))):
            behind.send(piece)
            length -= len(piece)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers, which no client of a registry sends

    def _answer(self, response: http.client.HTTPResponse) -> None:
        self.send_response(response.status)
        length = response.getheader("Content-Length")
        for header, value in response.getheaders():
            if header.lower() not in {*_HOP, "date", "server"}:
                self.send_header(header, value)
        if length is None and self.command != "HEAD":  # small JSON
            body = response.read()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        while piece := response.read(_PIECE_BYTES):
            self.wfile.write(piece)
