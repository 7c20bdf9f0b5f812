"""A registry in this process: a real HTTP server on loopback that speaks the distribution API and fails when told to."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any

from prebuilt.core.descriptor import Descriptor
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.registry_faults import Fault, Faults
from prebuilt.testing.registry_handler import RegistryHandler
from prebuilt.testing.registry_store import RegistryStore
from prebuilt.testing.served import serving


@dataclass(slots=True, kw_only=True)
class RecordedRequest:
    """One request as it came, and how it was answered; `status` is None where the connection was cut."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int | None = None
    body_bytes: int = 0

    def __str__(self) -> str:
        """Return ``METHOD path``."""
        return f"{self.method} {self.path}"


class InMemoryRegistry:
    """A registry that lives as long as its ``with`` block.

    Attributes:
        auth: Who may do what.
        requests: Every request since the start or the last :meth:`forget_requests`, in order.
        mounts: Whether blobs are linked between repositories when asked.
        serves_ranges: Whether ``Range`` is honoured.
        absolute_locations: Whether uploads are named by a whole URL.
        refuses_monolithic: Status with which a blob in one PUT is refused; 0 takes it.
        chunk_min_length: Announced as ``OCI-Chunk-Min-Length``; 0 announces nothing.
        has_repository: Says whether a repository was made; others are unknown. By default each is made when it is written to.
        is_immutable: Says of a repository and a tag whether the tag stays where it was put first.
        address: Where it listens; another than loopback for engines that run elsewhere.

    `handler` may be one that answers more than registries do.
    """

    def __init__(
        self,
        *,
        auth: RegistryAuth | None = None,
        tls: ssl.SSLContext | None = None,
        mounts: bool = True,
        serves_ranges: bool = True,
        absolute_locations: bool = False,
        refuses_monolithic: int = 0,
        chunk_min_length: int = 0,
        has_repository: Callable[[str], bool] = lambda _: True,
        is_immutable: Callable[[str, str], bool] = lambda _, __: False,
        address: str = "127.0.0.1",
        handler: type[RegistryHandler] = RegistryHandler,
    ) -> None:
        """Set up; ``with`` starts the server."""
        self.auth = auth or RegistryAuth()
        self.mounts, self.serves_ranges, self.absolute_locations = mounts, serves_ranges, absolute_locations
        self.refuses_monolithic, self.chunk_min_length = refuses_monolithic, chunk_min_length
        self.has_repository, self.is_immutable = has_repository, is_immutable
        self.address = address
        self._handler = handler
        self.store = RegistryStore()
        self.faults = Faults()
        self.requests: list[RecordedRequest] = []
        self._tls = tls
        self._server: _Server | None = None
        self._running = contextlib.ExitStack()

    def __enter__(self) -> InMemoryRegistry:  # noqa: PYI034 - Self is newer than Python 3.10
        """Start to serve on a free port."""
        handler = type("Handler", (self._handler,), {"registry": self})
        self._server = _Server((self.address, 0), handler, self._tls)
        self._running.callback(self._server.cut_connections)  # once there can be no new ones
        self._running.enter_context(serving(self._server))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and cut the connections that are open."""
        self.stop()

    def stop(self) -> None:
        """Stop serving: from now on connections are refused. Harmless when stopped already."""
        self._running.close()

    @property
    def host(self) -> str:
        """``address:port``: the first part of its repositories' names."""
        if self._server is None:
            raise RuntimeError("the registry was not started: use it in a with block")
        return f"{self.address}:{self._server.server_port}"

    @property
    def base_url(self) -> str:
        """Scheme and host."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def repository(self, name: str) -> str:
        """Return the full name of a repository here."""
        return f"{self.host}/{name}"

    def put_blob(self, repository: str, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        """Keep a blob without a request."""
        return self.store.put_blob(repository, data, media_type)

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> Descriptor:
        """Keep a manifest without a request; its blobs must be there."""
        return self.store.put_manifest(repository, reference, media_type, data)

    # What was asked.

    def record(self, method: str, path: str, headers: Mapping[str, str]) -> RecordedRequest:
        """Append to :attr:`requests`; called by the handler."""
        request = RecordedRequest(method=method, path=path, headers=headers)
        self.requests.append(request)
        return request

    def count(self, method: str = "*", path: str = "") -> int:
        """Return how many requests of `method` came whose path matches the regular expression `path`."""
        return sum(method in {"*", r.method} and re.search(path, r.path) is not None for r in self.requests)

    @property
    def connection_count(self) -> int:
        """How many connections were opened since the start."""
        return self._server.connection_count if self._server else 0

    def forget_requests(self) -> None:
        """Empty the log."""
        self.requests.clear()

    # What goes wrong. `method` may be *; `path` is a regular expression that is searched in path and query.

    def fail(
        self,
        method: str,
        path: str,
        *,
        status: int,
        code: str = "",
        message: str = "a fault that the test switched on",
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` such requests with `status`."""
        fault = Fault(
            kind="status",
            method=method,
            path=re.compile(path),
            times=times,
            status=status,
            code=code,
            message=message,
            headers=headers or {},
        )
        self.faults.add(fault)

    def truncate(self, path: str, *, after_bytes: int, times: int = 1) -> None:
        """Cut the connection after `after_bytes` of the body of the next `times` answers to such a GET."""
        self.faults.add(
            Fault(kind="truncate", method="GET", path=re.compile(path), times=times, after_bytes=after_bytes)
        )

    def corrupt(self, path: str, *, times: int = 1) -> None:
        """Flip the last byte of the body of the next `times` answers to such a GET."""
        self.faults.add(Fault(kind="corrupt", method="GET", path=re.compile(path), times=times))

    def drop(self, method: str, path: str, *, after_bytes: int = 0, times: int = 1) -> None:
        """Cut the connection of the next `times` such requests after `after_bytes` of their body, without an answer."""
        self.faults.add(Fault(kind="drop", method=method, path=re.compile(path), times=times, after_bytes=after_bytes))

    def delay(self, method: str, path: str, *, delay_s: float, times: int = 1) -> None:
        """Wait before the answer to the next `times` such requests."""
        self.faults.add(Fault(kind="delay", method=method, path=re.compile(path), times=times, delay_s=delay_s))


class _Server(ThreadingHTTPServer):
    """Remembers its connections, so that it can end those that clients keep alive."""

    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: Any, tls: ssl.SSLContext | None) -> None:  # noqa: ANN401 - a handler class
        self._connections: set[socket.socket] = set()
        self.connection_count = 0
        self._lock = threading.Lock()
        self._tls = tls
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the standard library has it
        connection = request
        if self._tls is not None:
            request.settimeout(10)
            connection = self._tls.wrap_socket(request, server_side=True)
        with self._lock:
            self._connections.add(connection)
            self.connection_count += 1
        try:
            super().finish_request(connection, client_address)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the standard library has it
        """Say nothing: clients that go away in the middle are what is tested."""

    def cut_connections(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
