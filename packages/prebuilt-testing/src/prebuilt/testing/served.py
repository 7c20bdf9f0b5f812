"""Servers in a thread of this process."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

_LOOK_S = 0.02
"""How soon a server sees that it should stop."""

Server = TypeVar(
    "Server", bound=ThreadingHTTPServer | socketserver.ThreadingTCPServer | socketserver.ThreadingUnixStreamServer
)


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run `server` for the time of the body, then close it. Connections that clients keep open are not waited for."""
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, args=(_LOOK_S,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def serving_http(handler: type[BaseHTTPRequestHandler], address: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Answer by `handler`, for the time of the body; give the URL, without a slash at its end. Port 0 is any free one."""
    with serving(ThreadingHTTPServer((address, port), handler)) as server:
        yield f"http://{address}:{server.server_port}"
