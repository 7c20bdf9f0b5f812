"""A TCP relay on loopback in front of a server: it counts what passes, and makes the line as slow as a test wants it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

_PIECE_BYTES = 16 << 10
_BUFFER_BYTES = 256 << 10  # where the system has buffers of many megabytes, a slow line would look like a fast one


@dataclass(slots=True)
class Relay:
    """A line to one server.

    Attributes:
        address: ``127.0.0.1:port``, to be used in place of the server's.
        sent_bytes: What clients sent so far, of all connections together.
        received_bytes: What clients were sent so far.
        up_bytes_per_s: How fast each connection takes what its client sends; 0: not at all; None: as it comes.
        down_bytes_per_s: The same for what the server answers.
    """

    address: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    up_bytes_per_s: int | None = None
    down_bytes_per_s: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sockets: set[socket.socket] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)

    def forget(self) -> None:
        """Count from 0 again."""
        with self._lock:
            self.sent_bytes = self.received_bytes = 0

    def accept(self, listener: socket.socket, server: tuple[str, int]) -> None:
        """Connect every client to `server`, until the listener is closed."""
        threads: list[threading.Thread] = []
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                behind = socket.create_connection(server)
                with self._lock:
                    self._sockets |= {client, behind}
                for source, target, is_up in ((client, behind, True), (behind, client, False)):
                    threads.append(threading.Thread(target=self._pump, args=(source, target, is_up), daemon=True))
                    threads[-1].start()
        for thread in threads:
            thread.join()

    def end(self) -> None:
        """Cut all connections."""
        self._ended.set()
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:  # noqa: FBT001 - of a thread
        with contextlib.suppress(OSError):  # either side may close whenever it likes
            while self._wait(_PIECE_BYTES, is_up) and (piece := source.recv(_PIECE_BYTES)):
                with self._lock:  # before they pass: who has got them may ask
                    self.sent_bytes += len(piece) if is_up else 0
                    self.received_bytes += 0 if is_up else len(piece)
                target.sendall(piece)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RD if each is source else socket.SHUT_WR)
        if not is_up:  # the server has said all that it will
            for each in (source, target):
                with self._lock:
                    self._sockets.discard(each)
                each.close()

    def _wait(self, size_bytes: int, is_up: bool) -> bool:  # noqa: FBT001 - as above
        """Wait as long as `size_bytes` take; False once everything ends."""
        began_s = time.monotonic()
        while not self._ended.is_set():
            rate = self.up_bytes_per_s if is_up else self.down_bytes_per_s
            if rate is None or (rate and time.monotonic() - began_s >= size_bytes / rate):
                return True
            self._ended.wait(0.01)
        return False


@contextlib.contextmanager
def relay(server: str) -> Iterator[Relay]:
    """Give a relay to `server`, ``host:port``, for the time of the body."""
    host, _, port = server.rpartition(":")
    line = Relay()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)  # of each connection that it accepts
        line.address = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=line.accept, args=(listener, (host, int(port))), name="relay", daemon=True)
        thread.start()
        try:
            yield line
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            line.end()
            thread.join()
