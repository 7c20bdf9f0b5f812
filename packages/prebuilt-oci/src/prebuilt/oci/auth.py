"""Who we are to a registry: Basic credentials, or tokens from its token service, fetched when first asked for.

Source: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import RegistryError, UnauthorizedError
from prebuilt.oci.docker_config import Login
from prebuilt.oci.failure import place
from prebuilt.oci.transport import Answer, Call

_CLIENT_ID = "metaflow-prebuilt"
_DEFAULT_LIFETIME_S = 60.0  # what the token specification says where expires_in is missing
_EARLY_S = 10.0
"""Tokens count as expired this long before they are: a request is under way for a while. At most half their lifetime."""

_RENEW_EARLY = timedelta(minutes=5)
"""Credentials are renewed this long before they expire: a large blob is under way for minutes."""

Ask = Callable[[Call, str | None], Answer]
"""Sends a request with an ``Authorization`` header, or without one."""

_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*(Basic|Bearer)(?=\s|,|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What a registry wants to see: ``Basic``, or a ``Bearer`` token from `realm`."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse_all(cls, headers: Iterable[str]) -> list[Challenge]:
        """Read ``WWW-Authenticate`` headers; schemes that are not known here are dropped.

        Source: RFC 9110, section 11.6.1
        """
        challenges = []
        for header in headers:
            starts = list(_SCHEME.finditer(header))
            for start, end in zip(starts, [*(s.start() for s in starts[1:]), len(header)], strict=True):
                fields = {
                    name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(header[start.end() : end])
                }
                known = {name: fields.get(name, "") for name in ("realm", "service", "scope")}
                challenges.append(cls(scheme=start[1].lower(), **known))
        return challenges


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    scopes: frozenset[str]
    good_until_s: float  # on the monotonic clock


class Authenticator:
    """The ``Authorization`` headers for one registry. Concurrent calls are fine: one token is fetched for all.

    Nothing is sent before the registry asks for it; then what it asked for is remembered.
    """

    def __init__(
        self,
        find_login: Callable[[], Login | None],
        clock: Callable[[], float] = time.monotonic,
        renew: Callable[[Credentials], Credentials | None] = lambda _: None,
        expected: Challenge | None = None,
    ) -> None:
        """Find credentials with `find_login` when they are asked for.

        What `renew` returns replaces credentials before they expire, and when the registry refuses them. `expected` is what the
        registry is known to ask for: it need not ask.
        """
        self._find_login, self._clock, self._renew = find_login, clock, renew
        self._lock = threading.RLock()
        self._challenge = expected
        self._login: Login | None = None
        self._has_looked = False
        self._tokens: list[_Token] = []

    @property
    def account(self) -> str:
        """Who is asking, in words, for messages."""
        if self._challenge is None:
            return ""
        return f"as {self._login}" if self._login else "anonymously: no login for this registry was found"

    def authorization(self, scopes: frozenset[str], ask: Ask) -> str | None:
        """Return the header for a request that needs `scopes`; None as long as the registry has not asked.

        `ask` sends what a token service has to be asked.

        Raises:
            RegistryError: The token service refused or could not be asked.
        """
        with self._lock:
            challenge = self._challenge
            if challenge is None:
                return None
            if not self._has_looked:
                self._look_up()
            if self._login is not None and _is_ending(self._login):
                self._renew_login(self._login)
            if challenge.scheme == "basic":
                return _basic(self._login) if self._login else None
            if self._login and self._login.kind == "registry":
                return f"Bearer {self._login.credentials.secret}"
            now = self._clock()
            self._tokens = [token for token in self._tokens if token.good_until_s > now]
            token = next((token for token in self._tokens if token.scopes >= scopes), None)
            if token is None:
                token = self._fetch_token(challenge, scopes, ask)
                self._tokens.append(token)
            return f"Bearer {token.value}"

    def challenged(self, headers: list[str], rejected: str | None) -> bool:
        """Learn from a 401; return whether another try has something else to show than `rejected`."""
        with self._lock:
            usable = [c for c in Challenge.parse_all(headers) if c.scheme == "basic" or c.realm]
            if not usable:
                return False
            known = self._challenge is not None
            # Bearer first: where both are offered, a token says less about us.
            self._challenge = max(usable, key=lambda challenge: challenge.scheme == "bearer")
            self._tokens = [token for token in self._tokens if f"Bearer {token.value}" != rejected]
            if not known or (rejected is not None and not self._replace_login(rejected)):
                self._look_up()
            if self._challenge.scheme == "basic":
                return self._login is not None and _basic(self._login) != rejected
            return self._login is None or f"Bearer {self._login.credentials.secret}" != rejected

    def renewed(self, rejected: str | None) -> bool:
        """Learn from a 403; return whether other credentials than those behind `rejected` could be had.

        Some registries answer so to a password that has expired, Amazon's for one. Whether age can be the cause is known to
        where the password came from.
        """
        with self._lock:
            return self._replace_login(rejected)

    def _replace_login(self, rejected: str | None) -> bool:
        """Return whether there is another password than the `rejected` one, by now or from the source.

        Bearer tokens are replaced without: what they were bought with is good until it expires.
        """
        if rejected is None or self._login is None or not rejected.startswith("Basic "):
            return False
        return _basic(self._login) != rejected or self._renew_login(self._login)

    def _look_up(self) -> None:
        self._login, self._has_looked = self._find_login(), True

    def _renew_login(self, before: Login) -> bool:
        """Return whether there are other credentials now. Tokens that the old ones got are dropped with them."""
        credentials = self._renew(before.credentials)
        if credentials is None or credentials == before.credentials:
            return False
        self._login = Login.explicit(credentials)
        self._tokens.clear()
        return True

    def _fetch_token(self, challenge: Challenge, scopes: frozenset[str], ask: Ask, *, may_renew: bool = True) -> _Token:
        scopes |= _split(challenge.scope)
        call, authorization = _token_request(challenge, scopes, self._login)
        try:
            answer = ask(call, authorization)
        except UnauthorizedError as error:
            # Once: a source may have others for ever, none of which is good.
            if may_renew and self._login is not None and self._renew_login(self._login):
                return self._fetch_token(challenge, scopes, ask, may_renew=False)
            raise UnauthorizedError(
                error.tried,
                at=error.at,
                reason=f"{error.reason} ({self.account})",
                remedy=error.remedy,
                status=error.status,
                code=error.code,
            ) from error
        return self._read_token(call, answer, scopes)

    def _read_token(self, call: Call, answer: Answer, scopes: frozenset[str]) -> _Token:
        try:
            data = json.loads(answer.body)
            value = str(data.get("token") or data.get("access_token") or "")
            lifetime_s = float(data.get("expires_in") or _DEFAULT_LIFETIME_S)
        except (ValueError, TypeError, AttributeError):
            value, lifetime_s = "", 0.0
        if not value:
            reason = "its answer has no token"  # and is not shown: it might
            raise RegistryError(call.tried, at=place(call.method, call.url), reason=reason, status=answer.status)
        good_for_s = lifetime_s - min(_EARLY_S, lifetime_s / 2)
        return _Token(value, scopes, self._clock() + good_for_s)


def _token_request(challenge: Challenge, scopes: frozenset[str], login: Login | None) -> tuple[Call, str | None]:
    fields = [("service", challenge.service)] if challenge.service else []
    tried = f"get a token for {' '.join(_joined(scopes)) or 'no scope'}"
    if login is not None and login.kind == "identity":
        fields += [
            ("grant_type", "refresh_token"),
            ("client_id", _CLIENT_ID),
            ("refresh_token", login.credentials.secret),
            ("scope", " ".join(_joined(scopes))),
        ]
        body = urlencode(fields).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
        call = Call(
            method="POST",
            url=challenge.realm,
            tried=tried,
            wanted=frozenset({200}),
            headers=headers,
            body=lambda: iter((body,)),
        )
        return call, None
    fields += [("scope", scope) for scope in _joined(scopes)]
    if login is not None:
        fields.append(("account", login.credentials.username))
    separator = "&" if "?" in challenge.realm else "?"
    url = f"{challenge.realm}{separator}{urlencode(fields)}"
    call = Call(method="GET", url=url, tried=tried, wanted=frozenset({200}))
    return call, _basic(login) if login else None


def _is_ending(login: Login) -> bool:
    ends_at = login.credentials.expires_at
    return ends_at is not None and ends_at - datetime.now(timezone.utc) < _RENEW_EARLY


def _basic(login: Login) -> str:
    pair = f"{login.credentials.username}:{login.credentials.secret}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _split(scope: str) -> frozenset[str]:
    """Turn ``repository:x:pull,push`` into a scope for each action, so that sets compare."""
    split = set()
    for one in scope.split():
        head, colon, actions = one.rpartition(":")
        split |= {f"{head}{colon}{action}" for action in actions.split(",") if action}
    return frozenset(split)


def _joined(scopes: frozenset[str]) -> list[str]:
    """The inverse of :func:`_split`, one string for each resource."""
    actions: dict[str, list[str]] = {}
    for scope in sorted(scopes):
        head, _, action = scope.rpartition(":")
        actions.setdefault(head, []).append(action)
    return [f"{head}:{','.join(of_head)}" for head, of_head in actions.items()]
