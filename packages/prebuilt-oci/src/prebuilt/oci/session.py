"""A conversation with one registry: authenticated, tried again where that may help, shared by all of this process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.oci.amazon import is_ecr
from prebuilt.oci.auth import Authenticator, Challenge
from prebuilt.oci.config import NetworkConfig
from prebuilt.oci.logins import Logins
from prebuilt.oci.retrying import Sleep, with_retries
from prebuilt.oci.transport import Answer, Call, Wire, origin_of, read_answer, refuse

_UNAUTHORIZED, _FORBIDDEN = 401, 403
_REFUSALS = 2
"""How many a request may meet: of nothing shown, and of credentials that have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What all sessions with one registry share: where it is, connections, and who we are to it."""

    base_url: str
    wire: Wire
    authenticator: Authenticator


class Session:
    """Requests to one registry. Concurrent calls are fine.

    Attributes:
        base_url: Of the registry.
        backoff: How often to try again.
        sleep: Waits between tries; raises if whoever uses this session should stop.
    """

    def __init__(self, line: Line, *, backoff: Backoff, sleep: Sleep) -> None:
        """Talk over `line`."""
        self.base_url = line.base_url
        self.backoff, self.sleep = backoff, sleep
        self._wire, self._authenticator = line.wire, line.authenticator
        self._origin = origin_of(line.base_url)

    def request(self, call: Call) -> Answer:
        """Send `call`, again where that may help, and return the whole answer.

        Raises:
            RegistryError: The answer was not wanted, or none came.
        """
        return with_retries(lambda: self.request_once(call), backoff=self.backoff, sleep=self.sleep)

    def request_once(self, call: Call) -> Answer:
        """Send `call` without another try, but for one with credentials if the registry asks for them.

        Raises:
            TransientError: Another try may help.
            RegistryError: It cannot.
        """
        return read_answer(call, self._open_once(call))

    @contextlib.contextmanager
    def stream(self, call: Call) -> Iterator[httpx2.Response]:
        """Send `call`, again where that may help, and give the answer with its body unread."""
        response = with_retries(lambda: self._open_once(call), backoff=self.backoff, sleep=self.sleep)
        try:
            yield response
        finally:
            response.close()

    def _open_once(self, call: Call) -> httpx2.Response:
        is_ours = origin_of(call.url) == self._origin
        response, shown = self._open_authorized(call, is_ours=is_ours)
        for _ in range(_REFUSALS):
            if not (is_ours and _origin(response) == self._origin and self._has_something_else(response, shown)):
                break
            response.close()
            response, shown = self._open_authorized(call, is_ours=True)
        if response.status_code in call.wanted:
            return response
        raise refuse(call, response, self._authenticator.account)

    def _has_something_else(self, response: httpx2.Response, shown: str | None) -> bool:
        """Return whether the registry refused what was `shown`, and there is something else to show."""
        if response.status_code == _UNAUTHORIZED:
            return self._authenticator.challenged(response.headers.get_list("WWW-Authenticate"), shown)
        return response.status_code == _FORBIDDEN and self._authenticator.renewed(shown)

    def _open_authorized(self, call: Call, *, is_ours: bool) -> tuple[httpx2.Response, str | None]:
        authorization = self._authenticator.authorization(call.scopes, self._ask) if is_ours else None
        return self._wire.open(call, authorization), authorization

    def _ask(self, call: Call, authorization: str | None) -> Answer:
        def once() -> Answer:
            response = self._wire.open(call, authorization)
            if response.status_code in call.wanted:
                return read_answer(call, response)
            raise refuse(call, response, "")

        return with_retries(once, backoff=self.backoff, sleep=self.sleep)


def _origin(response: httpx2.Response) -> tuple[str, str]:
    return origin_of(str(response.url))


@dataclass(frozen=True, slots=True)
class _LineKey:
    host: str
    repository: str
    credentials: Credentials | CredentialsSource | None
    config: NetworkConfig
    login_places: tuple[str | None, ...]


_LOGIN_VARIABLES = ("HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "PATH")
_lines: dict[_LineKey, Line] = {}
_lines_lock = threading.Lock()


def shared_line(
    host: str, repository: str, settings: Settings, *, credentials: Credentials | CredentialsSource | None
) -> Line:
    """Return this process's line for a repository, so that a token is fetched once and not for each object."""
    places = tuple(map(settings.environ.get, _LOGIN_VARIABLES))
    key = _LineKey(host, repository, credentials, NetworkConfig.from_settings(settings), places)
    with _lines_lock:
        if key not in _lines:
            _lines[key] = new_line(host, repository, settings, credentials=credentials)
        return _lines[key]


def new_line(
    host: str,
    repository: str,
    settings: Settings,
    *,
    credentials: Credentials | CredentialsSource | None,
    transport: httpx2.BaseTransport | None = None,
) -> Line:
    """Return a line of its own; `transport` takes the place of the shared connections."""
    config = NetworkConfig.from_settings(settings)
    logins = Logins(host, repository, settings, credentials)
    expected = Challenge(scheme="basic") if is_ecr(host) else None  # saves a refusal for each repository
    find = Authenticator(logins.find, renew=logins.renew, expected=expected)
    return Line(base_url=config.base_url(host), wire=Wire(config, transport), authenticator=find)
