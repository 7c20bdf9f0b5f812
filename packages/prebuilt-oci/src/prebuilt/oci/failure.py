"""Errors out of what a registry answered, or did not."""

from __future__ import annotations

import http
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prebuilt.core.errors import (
    ForbiddenError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    UnauthorizedError,
)
from prebuilt.oci.amazon import (
    LAYER_LIMIT_REMEDY,
    allow_remedy,
    expired_remedy,
    iam_action,
    is_ecr,
    is_expired,
    missing_remedy,
    rate_remedy,
)
from prebuilt.oci.config import CA_SETTING, INSECURE_SETTING
from prebuilt.oci.docker_hub import PULL_LIMIT_REMEDY, PullLimit, denied_push_remedy, is_docker_hub, is_pull_limit
from prebuilt.oci.google import is_google, refusal_remedy

_MAX_MESSAGE_LENGTH = 500
_OF_ACCOUNTS = frozenset({UnauthorizedError, ForbiddenError, RateLimitedError})
_RATE_LIMIT_REMEDY = (
    "wait a while, log in if you have not (logged-in accounts are often allowed more), or lower the concurrency"
)
_REMEDIES = {
    "NAME_UNKNOWN": "create the repository, or check its name",
    "TAG_INVALID": "where tags cannot be moved: deploy again to use what is there, or delete that tag",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that was not wanted.

    Attributes:
        tried: What was being done.
        method: HTTP method.
        url: As sent; shown without its query, which may hold a signature.
        status: HTTP status.
        body: The beginning of the body.
        headers: Of the answer, their names in lower case.
        account: Who was asking, in words.
    """

    tried: str
    method: str
    url: str
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    account: str = ""

    @property
    def place(self) -> str:
        """``METHOD URL``."""
        return place(self.method, self.url)

    def first_error(self) -> tuple[str, str]:
        """Return code and message of the first error of the body; both are empty where there is none.

        Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
        """
        try:
            data = json.loads(self.body)
        except ValueError:
            return "", ""
        if not isinstance(data, dict):
            return "", ""
        errors = data.get("errors")
        if isinstance(errors, list) and errors and isinstance(errors[0], dict):
            first = errors[0]
            detail = first.get("detail")
            message = str(first.get("message") or (detail if isinstance(detail, str) else ""))
            return str(first.get("code") or ""), message[:_MAX_MESSAGE_LENGTH]
        if isinstance(
            data.get("error"), dict
        ):  # Google's APIs: https://cloud.google.com/apis/design/errors#http_mapping
            error = data["error"]
            return str(error.get("status") or ""), str(error.get("message") or "")[:_MAX_MESSAGE_LENGTH]
        # Token services have a form of their own (RFC 6749, section 5.2), or Docker Hub's.
        message = data.get("error_description") or data.get("details") or data.get("message") or data.get("error") or ""
        return "", str(message)[:_MAX_MESSAGE_LENGTH]

    @property
    def is_rate_limit(self) -> bool:
        """Whether too much was asked, of whatever."""
        return self.status == http.HTTPStatus.TOO_MANY_REQUESTS or self.first_error()[0].upper() == "TOOMANYREQUESTS"

    @property
    def is_pull_limit(self) -> bool:
        """Whether the limit is the one on pulls, Docker Hub's: it lasts for hours, so that trying again cannot help."""
        return self.is_rate_limit and is_pull_limit(self.first_error()[1], PullLimit.parse(self.headers))

    def to_error(self) -> RegistryError:
        """Return the error for the status."""
        code, message = self.first_error()
        if self.is_rate_limit:
            return self._rate_limited(code, message)
        by_google = refusal_remedy(self.status, code, self.method, self.url) if is_google(_host(self.url)) else ""
        if self.status == http.HTTPStatus.UNAUTHORIZED:
            return self._error(UnauthorizedError, code, message, by_google or _login_remedy(self.method, self.url))
        if self.status == http.HTTPStatus.FORBIDDEN:
            return self._error(ForbiddenError, code, message, by_google or self._permission_remedy(message))
        return self._error(RegistryError, code, message, by_google or self._remedy(code))

    def _rate_limited(self, code: str, message: str) -> RegistryError:
        limit = PullLimit.parse(self.headers)
        if limit is not None:
            message = f"{message or _phrase(self.status)} [{limit}]"
        return self._error(RateLimitedError, code, message, self._rate_limit_remedy(code))

    def _rate_limit_remedy(self, code: str) -> str:
        host = _host(self.url)
        if self.is_pull_limit or is_docker_hub(host):
            return PULL_LIMIT_REMEDY
        if is_ecr(host):
            return rate_remedy(self.method, self.url)
        by_google = refusal_remedy(self.status, code, self.method, self.url) if is_google(host) else ""
        return by_google or _RATE_LIMIT_REMEDY

    def _remedy(self, code: str) -> str:
        if self.status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            is_amazons = is_ecr(_host(self.url))
            return (
                LAYER_LIMIT_REMEDY if is_amazons else "raise the size limit of the registry or of the proxy before it"
            )
        if self.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            return "try again later, or ask those who run the registry"
        by_amazon = missing_remedy(self.url) if code == "NAME_UNKNOWN" else ""
        return by_amazon or _REMEDIES.get(code, "")

    def _permission_remedy(self, message: str) -> str:
        host = _host(self.url)
        if is_ecr(host) and is_expired(message):
            return expired_remedy(host)
        action = iam_action(self.method, self.url) if is_ecr(host) else ""
        if action:
            return allow_remedy(action)
        denied_push = denied_push_remedy(self.method, self.url) if is_docker_hub(host) else ""
        return denied_push or "ask for the right to do this, or use another account"

    def _error(self, kind: type[RegistryError], code: str, message: str, remedy: str) -> RegistryError:
        account = f" ({self.account})" if self.account and kind in _OF_ACCOUNTS else ""
        return kind(
            self.tried,
            at=self.place,
            reason=f"{self.status} {': '.join(filter(None, (code, message))) or _phrase(self.status)}{account}",
            remedy=remedy,
            status=self.status,
            code=code,
        )


def place(method: str, url: str) -> str:
    """Return ``METHOD URL`` without the query."""
    return f"{method} {url.partition('?')[0]}"


def unreachable(tried: str, method: str, url: str, error: Exception) -> RegistryUnreachableError:
    """Return the error for a request that got no answer."""
    reason = str(error) or type(error).__name__
    if _is_tls_failure(error):
        host = _host(url)
        remedy = f"name your certificate authorities in {CA_SETTING} or put them into certs.d/{host}/ca.crt"
        if "WRONG_VERSION_NUMBER" in reason:
            remedy = f"if it speaks plain HTTP, and that is meant, name {host} in {INSECURE_SETTING}"
        return RegistryUnreachableError(tried, at=place(method, url), reason=f"TLS: {reason}", remedy=remedy)
    remedy = "check the name, the network and the proxy settings"
    return RegistryUnreachableError(tried, at=place(method, url), reason=reason, remedy=remedy)


def is_final(error: Exception) -> bool:
    """Return whether trying again cannot help: an untrusted certificate, a host that does not exist."""
    return _is_tls_failure(error) or any(
        isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME for cause in _causes(error)
    )


def _is_tls_failure(error: Exception) -> bool:
    return any(isinstance(cause, ssl.SSLError) and not _is_cut(cause) for cause in _causes(error))


def _is_cut(error: ssl.SSLError) -> bool:
    """Return whether the other side merely went away."""
    return isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:  # noqa: PLR2004 - deeper than any chain of the HTTP client
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _login_remedy(method: str, url: str) -> str:
    host = _host(url)
    if is_ecr(host):
        return (
            "check that your AWS credentials may use this account and region; what is not pushed by the registry ecr needs"
            " `docker login` or Amazon's credential helper"
        )
    if is_docker_hub(host):
        return denied_push_remedy(method, url) or "check that the repository exists, and log in: docker login"
    return f"check that the repository exists, and log in: docker login {host}"
