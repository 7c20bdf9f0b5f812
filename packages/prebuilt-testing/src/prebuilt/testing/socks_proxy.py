"""A SOCKS proxy on loopback, as companies have them between their machines and everybody else's.

Source: RFC 1928
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
from collections.abc import Iterator
from dataclasses import dataclass, field

from prebuilt.testing.served import serving

_VERSION, _NO_LOGIN, _CONNECT, _NAME = 5, 0, 1, 3
_GRANTED = bytes([_VERSION, 0, 0, 1, 0, 0, 0, 0, 0, 0])
_PIECE_BYTES = 64 << 10


@dataclass(slots=True)
class SocksProxy:
    """One proxy.

    Attributes:
        url: What to set ``ALL_PROXY`` to.
        servers: Where hosts are to be found, ``host:port`` by ``host:port``; those that are not in it are where they say.
        asked: The hosts that were asked for.
    """

    url: str = ""
    servers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def socks_proxy() -> Iterator[SocksProxy]:
    """Give a proxy for the time of the body."""
    proxy = SocksProxy()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            host = _wanted(self.request)
            proxy.asked.append(host)
            name, _, port = proxy.servers.get(host, host).rpartition(":")
            with socket.create_connection((name, int(port))) as server:
                self.request.sendall(_GRANTED)
                _pump(self.request, server)

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as server:
        proxy.url = f"socks5://127.0.0.1:{server.server_address[1]}"
        yield proxy


def _wanted(client: socket.socket) -> str:
    """Shake hands; return the ``host:port`` that the client wants to be connected to."""
    _, methods = _read(client, 2)
    _read(client, methods)
    client.sendall(bytes([_VERSION, _NO_LOGIN]))
    _, command, _, kind = _read(client, 4)
    if command != _CONNECT:
        raise ValueError(f"command {command} is not known here")
    name = _read(client, _read(client, 1)[0]).decode() if kind == _NAME else socket.inet_ntoa(_read(client, 4))
    return f"{name}:{int.from_bytes(_read(client, 2), 'big')}"


def _read(client: socket.socket, size: int) -> bytes:
    return client.recv(size, socket.MSG_WAITALL)


def _pump(client: socket.socket, server: socket.socket) -> None:
    """Pass bytes on, both ways, until one side has said all."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, (client, server))
        selector.register(server, selectors.EVENT_READ, (server, client))
        while True:
            for key, _ in selector.select():
                source, target = key.data
                piece = source.recv(_PIECE_BYTES)
                if not piece:
                    return
                target.sendall(piece)
