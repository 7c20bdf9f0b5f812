"""The proxy through which servers of tests have the names of real ones."""

from __future__ import annotations

import http.client
from contextlib import closing

import pytest

from prebuilt.testing.connect_proxy import ConnectProxy
from prebuilt.testing.registry import InMemoryRegistry


def test_any_host_leads_to_the_server() -> None:
    """Whoever is asked for, the server answers, on connections that stay open; who was asked for is remembered."""
    with InMemoryRegistry() as server, ConnectProxy(server.host).serving() as proxy:
        for name in ("one.example.com", "two.example.com"):
            address, _, port = proxy.url.rpartition("/")[2].partition(":")
            with closing(http.client.HTTPConnection(address, int(port), timeout=10)) as connection:
                connection.set_tunnel(name, 80)
                for _ in range(2):
                    connection.request("GET", "/v2/")
                    with connection.getresponse() as answer:
                        assert (answer.status, answer.read()) == (200, b"{}")
        assert proxy.asked == ["one.example.com:80", "two.example.com:80"]
    assert server.count("GET") == 4


def test_a_server_that_is_gone_ends_the_connection() -> None:
    """Nothing hangs where nobody listens."""
    with ConnectProxy("127.0.0.1:1").serving() as proxy:
        address, _, port = proxy.url.rpartition("/")[2].partition(":")
        with closing(http.client.HTTPConnection(address, int(port), timeout=10)) as connection:
            connection.set_tunnel("gone.example.com", 443)
            with pytest.raises(ConnectionError):
                connection.connect()
