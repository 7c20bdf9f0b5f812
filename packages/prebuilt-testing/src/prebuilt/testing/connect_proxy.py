"""An HTTP proxy through which a server of a test is reached by the host name of a real one, over TLS."""

from __future__ import annotations

import contextlib
import fnmatch
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

from prebuilt.testing.served import serving_http


class ConnectProxy:
    """Takes ``CONNECT`` requests, and leads those for certain hosts to one server.

    Attributes:
        server: ``host:port`` of the server behind it; may be set while it serves.
        hosts: Pattern of the names that are led there; others are led where they say.
        asked: Each host and port that was asked for, in order.
    """

    def __init__(self, server: str, hosts: str = "*") -> None:
        """Lead to `server`; serve inside :meth:`serving`."""
        self.server = server
        self.hosts = hosts
        self.asked: list[str] = []
        self.url = ""

    @contextlib.contextmanager
    def serving(self, address: str = "127.0.0.1") -> Iterator[ConnectProxy]:
        """Serve on a free port of `address`; :attr:`url` is what ``HTTPS_PROXY`` has to be."""
        handler = type("Handler", (_Handler,), {"proxy": self})
        with serving_http(handler, address) as self.url:
            yield self


class _Handler(BaseHTTPRequestHandler):
    proxy: ConnectProxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing."""

    def do_CONNECT(self) -> None:
        """Join both connections until one of them ends."""
        self.proxy.asked.append(self.path)
        is_ours = fnmatch.fnmatchcase(self.path.rpartition(":")[0], self.proxy.hosts)
        host, _, port = (self.proxy.server if is_ours else self.path).rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as behind:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(behind, self.connection), daemon=True)
            back.start()
            _pump(self.connection, behind)
            back.join()
        self.close_connection = True


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    for each in (source, target):
        with contextlib.suppress(OSError):  # the other direction was faster
            each.shutdown(socket.SHUT_RDWR)
