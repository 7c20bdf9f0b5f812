"""How an in-memory registry asks who is there: not at all, by Basic, or by tokens that it issues itself."""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs

AuthScheme = Literal["none", "basic", "token"]


@dataclass(frozen=True, slots=True)
class _Token:
    scopes: frozenset[str]
    expires_at_s: float


@dataclass(kw_only=True)
class RegistryAuth:
    """Who may do what.

    Attributes:
        scheme: ``token`` is the Bearer flow of the distribution project, served by the registry itself below ``/token``.
        users: Password by user name.
        identity_tokens: Refresh tokens that are accepted at the token service.
        anonymous_pull: Whether a token for pulling is given to everybody.
        token_lifetime_s: How long a token is good for.
        refuses_with: Status for a user whose password is wrong or has expired; Amazon's registries answer 403.
    """

    scheme: AuthScheme = "none"
    users: Mapping[str, str] = field(default_factory=dict)
    identity_tokens: frozenset[str] = frozenset()
    anonymous_pull: bool = False
    token_lifetime_s: float = 300  # whole: Go takes no other number of seconds
    refuses_with: int = 401
    _tokens: dict[str, _Token] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def challenge(self, base_url: str, repository: str, action: str) -> str:
        """Return the ``WWW-Authenticate`` header of a 401."""
        if self.scheme == "basic":
            return 'Basic realm="in-memory registry"'
        scope = f',scope="repository:{repository}:{action}"' if repository else ""
        return f'Bearer realm="{base_url}/token",service="in-memory"{scope}'

    def allows(self, authorization: str | None, repository: str, action: str) -> bool:
        """Return whether the ``Authorization`` header of a request lets it do `action` (pull, push) in `repository`."""
        if self.scheme == "none":
            return True
        kind, _, value = (authorization or "").partition(" ")
        if self.scheme == "basic":
            return kind == "Basic" and self._user(value) is not None
        with self._lock:
            token = self._tokens.get(value)
        if kind != "Bearer" or token is None or token.expires_at_s <= time.monotonic():
            return False
        return not repository or f"repository:{repository}:{action}" in token.scopes

    def issue(self, authorization: str | None, fields: Mapping[str, list[str]]) -> tuple[int, dict[str, object]]:
        """Answer a request to the token service: its status and JSON.

        Source: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/
        """
        known = self._is_known(authorization, fields)
        if known is False:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
        scopes = _expand(scope for value in fields.get("scope", []) for scope in value.split())
        if known is None:
            scopes = {scope for scope in scopes if self.anonymous_pull and scope.endswith(":pull")}
        value = secrets.token_hex(16)
        with self._lock:
            self._tokens[value] = _Token(frozenset(scopes), time.monotonic() + self.token_lifetime_s)
        return 200, {"token": value, "access_token": value, "expires_in": self.token_lifetime_s}

    def revoke_all(self) -> None:
        """Forget every token that was issued."""
        with self._lock:
            self._tokens.clear()

    def _is_known(self, authorization: str | None, fields: Mapping[str, list[str]]) -> bool | None:
        """Return whether the credentials are right; None if there are none."""
        if fields.get("grant_type") == ["refresh_token"]:
            return fields.get("refresh_token", [""])[0] in self.identity_tokens
        if authorization is None:
            return None
        kind, _, value = authorization.partition(" ")
        return kind == "Basic" and self._user(value) is not None

    def _user(self, encoded: str) -> str | None:
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return user if user in self.users and self.users[user] == password else None


def form_fields(text: str) -> dict[str, list[str]]:
    """Return the fields of a query or of a form."""
    return parse_qs(text, keep_blank_values=True)


def _expand(scopes: Iterable[str]) -> set[str]:
    """Turn ``repository:x:pull,push`` into one scope for each action."""
    expanded: set[str] = set()
    for scope in scopes:
        head, _, actions = scope.rpartition(":")
        expanded |= {f"{head}:{action}" for action in actions.split(",")}
    return expanded
