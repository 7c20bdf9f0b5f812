"""HTTP requests: connections that this process shares, redirects that leak nothing, failures that may pass."""

from __future__ import annotations

import atexit
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import httpx2

from prebuilt.core.errors import RegistryError, SettingError
from prebuilt.core.loopback import is_loopback
from prebuilt.core.retry import LONGEST_WAIT_S, parse_retry_after
from prebuilt.oci._version import __version__
from prebuilt.oci.config import CA_SETTING, NetworkConfig, Trust, host_name
from prebuilt.oci.failure import Refusal, is_final, place, unreachable
from prebuilt.oci.retrying import TransientError

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 60.0

_MAX_CONNECTIONS = 64
_KEEP_ALIVE_S = 30.0  # most load balancers drop idle connections after 60
_MAX_REDIRECTS = 5
_MAX_ANSWER_BYTES = 16 << 20
"""Four times what the distribution specification allows for a manifest, the largest thing that is read whole."""
_MAX_ERROR_BYTES = 64 << 10
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_WITH_BODY = frozenset({307, 308})

Body = Callable[[], Iterable[bytes]]
"""Opens the bytes of a request from the start; called anew for each time that it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        method: HTTP method.
        url: In full.
        tried: What it is for, as an infinitive: ``push blob sha256:…``.
        wanted: Statuses that are no failure.
        scopes: What a token must allow: ``repository:library/python:pull``.
        headers: Beside those that every request has.
        body: None for no body; its length is in `headers`.
        read_timeout_s: How long the answer may take to begin, or to go on.
    """

    method: str
    url: str
    tried: str
    wanted: frozenset[int]
    scopes: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    read_timeout_s: float = READ_TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer: `url` is what was asked after redirects."""

    url: str
    status: int
    headers: httpx2.Headers
    body: bytes


class Wire:
    """Sends requests of one registry. Concurrent calls are fine."""

    def __init__(self, config: NetworkConfig, transport: httpx2.BaseTransport | None = None) -> None:
        """Use `transport` in place of the shared connections, if given."""
        self._config = config
        self._own = httpx2.Client(transport=transport, trust_env=False) if transport else None

    def open(self, call: Call, authorization: str | None) -> httpx2.Response:
        """Send `call` once, follow redirects, and return the answer with its body unread, whatever its status.

        `authorization` goes to the first host only: blob stores must not see it, and refuse requests that have it.

        Raises:
            TransientError: No answer came.
            RegistryError: It can never come, or the redirects lead nowhere or off TLS.
        """
        url, origin = call.url, origin_of(call.url)
        follows = _REDIRECTS if call.method in {"GET", "HEAD"} else _REDIRECTS_WITH_BODY
        for _ in range(_MAX_REDIRECTS + 1):
            own = origin_of(url) == origin
            response = self._send(call, url, authorization if own else None)
            target = response.headers.get("Location")
            if response.status_code not in follows or response.status_code in call.wanted or not target:
                return response
            response.close()
            url = str(httpx2.URL(url).join(target))
        raise RegistryError(call.tried, at=place(call.method, call.url), reason=f"more than {_MAX_REDIRECTS} redirects")

    def _send(self, call: Call, url: str, authorization: str | None) -> httpx2.Response:
        self._check_url(call, url)
        headers = {
            "User-Agent": f"metaflow-prebuilt/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **call.headers,
            **({"Authorization": authorization} if authorization else {}),
        }
        timeout = httpx2.Timeout(connect=CONNECT_TIMEOUT_S, read=call.read_timeout_s, write=WRITE_TIMEOUT_S, pool=None)
        request = httpx2.Request(
            call.method,
            url,
            headers=headers,
            content=call.body() if call.body else None,
            extensions={"timeout": timeout.as_dict()},
        )
        try:
            client = self._own or shared_client(httpx2.URL(url), self._config)
            return client.send(request, stream=True, follow_redirects=False)
        except httpx2.TransportError as error:
            failure = unreachable(call.tried, call.method, url, error)
            if is_final(error):
                raise failure from error
            raise TransientError(failure) from error

    def _check_url(self, call: Call, url: str) -> None:
        """Refuse to leave TLS: a redirect, an upload's location and a token service's address come from the network."""
        scheme, host = origin_of(url)
        if scheme == "https" or (scheme == "http" and self._config.allows_plain_http(host)):
            return
        raise RegistryError(
            call.tried,
            at=place(call.method, url),
            reason="it is not an https address, and the host is not on loopback",
            remedy="if a proxy before the registry ends TLS, let it send X-Forwarded-Proto: https; to allow plain HTTP,"
            " name the host in METAFLOW_PREBUILT_INSECURE_REGISTRIES",
        )


def read_answer(call: Call, response: httpx2.Response) -> Answer:
    """Read the whole body, at most 16 MiB, and close.

    Raises:
        TransientError: It broke off.
        RegistryError: It is too large.
    """
    body = _read(call, response, _MAX_ANSWER_BYTES)
    if len(body) > _MAX_ANSWER_BYTES:
        reason = f"the answer is larger than {_MAX_ANSWER_BYTES >> 20} MiB"
        raise RegistryError(call.tried, at=place(call.method, call.url), reason=reason, status=response.status_code)
    return Answer(url=str(response.url), status=response.status_code, headers=response.headers, body=body)


def refuse(call: Call, response: httpx2.Response, account: str) -> Exception:
    """Return the exception for an answer that was not wanted, and close it: transient where trying again may help."""
    refusal = Refusal(
        tried=call.tried,
        method=call.method,
        url=str(response.url),
        status=response.status_code,
        body=_read(call, response, _MAX_ERROR_BYTES),
        headers=response.headers,
        account=account,
    )
    error = refusal.to_error()
    asked_s = parse_retry_after(response.headers.get("Retry-After"))
    is_soon = asked_s is None or asked_s <= LONGEST_WAIT_S
    if response.status_code in _TRANSIENT and is_soon and not refusal.is_pull_limit:
        return TransientError(error, asked_s)
    return error


def origin_of(url: str) -> tuple[str, str]:
    """Return scheme and ``host[:port]``, lower-case and without the scheme's own port."""
    parsed = httpx2.URL(url)
    return parsed.scheme, parsed.netloc.decode("ascii").lower()


def _read(call: Call, response: httpx2.Response, limit: int) -> bytes:
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limit:
                break
    except httpx2.TransportError as error:
        raise TransientError(unreachable(call.tried, call.method, str(response.url), error)) from error
    finally:
        response.close()
    return bytes(body)


# Connections. A client for each kind of trust, and one that bypasses proxies; made when first needed, because reading
# the system's certificates takes some 20 ms. They are closed when the process ends.


@dataclass(frozen=True, slots=True)
class _ClientKey:
    trust: Trust | None
    direct: bool


_clients: dict[_ClientKey, httpx2.Client] = {}
_clients_lock = threading.Lock()


def shared_client(url: httpx2.URL, config: NetworkConfig) -> httpx2.Client:
    """Return the client for `url`.

    Proxies are read from the environment, but never used for loopback: neither Go nor curl would, and a proxy's own
    loopback is another machine's.
    """
    host = url.netloc.decode("ascii")
    key = _ClientKey(config.trust(host) if url.scheme == "https" else None, is_loopback(host_name(host)))
    with _clients_lock:
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = _new_client(key)
        return client


def _new_client(key: _ClientKey) -> httpx2.Client:
    context = _tls_context(key.trust)
    limits = httpx2.Limits(
        max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEP_ALIVE_S
    )
    try:
        return httpx2.Client(verify=context, trust_env=not key.direct, limits=limits)
    except (ValueError, httpx2.InvalidURL) as error:  # of the proxy: what we give is right
        raise SettingError(
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY",
            reason=str(error),
            remedy="name a proxy as http://host:port or socks5://host:port",
        ) from error


@atexit.register
def close_connections() -> None:
    """Close the connections that this process keeps; the next request opens new ones."""
    with _clients_lock:
        for client in _clients.values():
            client.close()
        _clients.clear()


def _tls_context(trust: Trust | None) -> ssl.SSLContext:
    if trust is None:  # for plain HTTP; trusts nobody
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if trust.ca_file or trust.ca_folder:
            context = ssl.create_default_context(cafile=trust.ca_file, capath=trust.ca_folder)
        else:
            context = httpx2.create_ssl_context(trust_env=False)
        for file in trust.extra_ca_files:
            context.load_verify_locations(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(file) for file in (trust.ca_file, *trust.extra_ca_files) if file)
        raise SettingError(
            CA_SETTING, at=files, reason=str(error), remedy="name a PEM file with certificate authorities"
        ) from error
    if trust.client_certificate:
        try:
            context.load_cert_chain(*trust.client_certificate)
        except OSError as error:
            raise SettingError(
                "certs.d",
                at=", ".join(map(str, trust.client_certificate)),
                reason=str(error),
                remedy="make them PEM files of a certificate and its key that you may read, or remove them",
            ) from error
    return context
