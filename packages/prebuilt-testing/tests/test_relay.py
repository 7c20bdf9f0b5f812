"""The relay passes everything on, counts it, and is as slow as it is told to be."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from prebuilt.testing.relay import Relay, relay
from prebuilt.testing.served import serving_http

SIZE_BYTES = 200_000


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer with what was sent."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""


@pytest.fixture
def line() -> Iterator[Relay]:
    """A relay to a server that sends back what it gets."""
    with serving_http(_Echo) as url, relay(url.removeprefix("http://")) as line:
        yield line


def post(line: Relay, timeout_s: float = 20) -> bytes:
    """Send bytes and return the answer."""
    request = urllib.request.Request(f"http://{line.address}/", data=b"x" * SIZE_BYTES)
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        return bytes(response.read())


def test_bytes_pass_and_are_counted(line: Relay) -> None:
    """Both ways, headers included, over several connections, from 0 again when asked to."""
    assert post(line) == post(line) == b"x" * SIZE_BYTES
    assert 2 * SIZE_BYTES < line.sent_bytes < 2 * SIZE_BYTES + 2000
    assert 2 * SIZE_BYTES < line.received_bytes < 2 * SIZE_BYTES + 2000
    line.forget()
    assert line.sent_bytes == line.received_bytes == 0


def test_a_line_is_slow_or_dead(line: Relay) -> None:
    """At the given rate, or not at all until it is let go."""
    line.up_bytes_per_s = 4 * SIZE_BYTES
    began_s = time.monotonic()
    assert post(line) == b"x" * SIZE_BYTES
    assert time.monotonic() - began_s > 0.2
    line.up_bytes_per_s, line.down_bytes_per_s = None, 0
    with pytest.raises(TimeoutError):
        post(line, timeout_s=2)
    line.down_bytes_per_s = None
    assert post(line) == b"x" * SIZE_BYTES
