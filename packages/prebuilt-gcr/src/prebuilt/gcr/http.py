"""HTTP for google-auth: the project's own connections, so that proxies and certificate authorities are those of every other request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
from google.auth import exceptions, transport

from prebuilt.oci.config import NetworkConfig
from prebuilt.oci.transport import shared_client

_TIMEOUT_S = 30.0


class HTTPResponse(transport.Response):
    """One answer, read whole."""

    def __init__(self, response: httpx2.Response) -> None:
        """Show `response`."""
        self._response = response

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """By names of any case."""
        return self._response.headers

    @property
    def data(self) -> bytes:
        """The body."""
        return self._response.content


class HTTPRequests(transport.Request):
    """What google-auth makes its requests with. Concurrent calls are fine."""

    def __init__(self, network: NetworkConfig) -> None:
        """Reach servers as `network` says."""
        self._network = network

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,  # noqa: ANN401 - what other transports take
    ) -> HTTPResponse:
        """Send a request and return the answer, whatever its status.

        Raises:
            TransportError: There is none.
        """
        try:
            return HTTPResponse(self._send(url, method, body, headers, timeout or _TIMEOUT_S))
        except httpx2.TransportError as error:
            raise exceptions.TransportError(f"{method} {url.partition('?')[0]}: {error}") from error

    def _send(
        self, url: str, method: str, body: bytes | str | None, headers: Mapping[str, str] | None, timeout_s: float
    ) -> httpx2.Response:
        if httpx2.URL(url).scheme == "https":
            shared = shared_client(httpx2.URL(url), self._network)
            return shared.request(method, url, content=body, headers=headers, timeout=timeout_s)
        with httpx2.Client(trust_env=False) as client:  # metadata servers are on the machine's own network: no proxy
            answer: httpx2.Response = client.request(method, url, content=body, headers=headers, timeout=timeout_s)
            return answer
