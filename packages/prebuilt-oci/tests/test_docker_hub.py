"""What Docker Hub's refusals mean."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from prebuilt.core.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from prebuilt.core.settings import Settings
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.docker_hub import PullLimit, is_docker_hub
from prebuilt.oci.media_types import OCI_MANIFEST

# As Docker Hub answers who has pulled too much.
LIMIT = {
    "ratelimit-limit": "100;w=21600",
    "ratelimit-remaining": "0;w=21600",
    "docker-ratelimit-source": "203.0.113.7",
}
REACHED = {
    "errors": [
        {
            "code": "TOOMANYREQUESTS",
            "message": "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
        }
    ]
}

Answer = Callable[[httpx2.Request], httpx2.Response]


class Hub:
    """A Docker Hub that answers every request in one way, and counts them."""

    def __init__(self, status: int, *, headers: dict[str, str] | None = None, json: object = None) -> None:
        self.asked: list[str] = []
        self._status, self._headers, self._json = status, headers, json

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        self.asked.append(f"{request.method} {request.url.host}")
        body = None if request.method == "HEAD" else self._json
        return httpx2.Response(self._status, headers=self._headers, json=body)

    def repository(self, name: str = "python") -> RegistryRepository:
        """Return a repository of it, for somebody who never waits."""
        return RegistryRepository(
            name,
            settings=Settings({"HOME": "/nowhere"}, {}),
            transport=httpx2.MockTransport(self),
            sleep=lambda _: None,
        )


def test_pull_limit_is_explained() -> None:
    """The error says what the limit is, whom it is counted for, and what to do; nothing is tried again for hours."""
    hub = Hub(429, headers=LIMIT, json=REACHED)
    with pytest.raises(RateLimitedError) as caught:
        hub.repository().get_manifest("3.11-slim")
    assert "unauthenticated pull rate limit" in caught.value.reason
    assert "[100 pulls in 6 hours for 203.0.113.7]" in caught.value.reason
    for advice in ("docker login", "wait", "METAFLOW_PREBUILT_BASE_IMAGE", "mirror"):
        assert advice in caught.value.remedy
    assert hub.asked == ["GET registry-1.docker.io"]


def test_pull_limit_without_a_body() -> None:
    """The answer to HEAD has no body: the headers are enough."""
    hub = Hub(429, headers=LIMIT)
    with pytest.raises(RateLimitedError, match=r"429 Too Many Requests \[100 pulls in 6 hours"):
        hub.repository().resolve("3.11-slim")
    assert len(hub.asked) == 1


def test_pull_limit_behind_a_mirror() -> None:
    """A mirror that passes Docker Hub's words on gets the same explanation."""
    hub = Hub(429, json=REACHED)
    with pytest.raises(RateLimitedError) as caught:
        hub.repository("mirror.example.com/library/python").get_manifest("3.11-slim")
    assert "Docker Hub limits" in caught.value.remedy
    assert len(hub.asked) == 1


def test_account_is_named() -> None:
    """Who asked is in the error, so that one sees whose limit was reached."""
    hub = Hub(429, headers=LIMIT, json=REACHED)

    def challenge_first(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "auth.docker.io":
            return httpx2.Response(200, json={"token": "t"})
        if "Authorization" not in request.headers:
            challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
            return httpx2.Response(401, headers={"WWW-Authenticate": challenge})
        return hub(request)

    transport = httpx2.MockTransport(challenge_first)
    repository = RegistryRepository("python", settings=Settings({"HOME": "/nowhere"}, {}), transport=transport)
    with pytest.raises(RateLimitedError, match="anonymously: no login for this registry was found"):
        repository.resolve("3.11-slim")


def test_fast_requests_are_tried_again() -> None:
    """A 429 that is about speed passes; the limit that has pulls left is none."""
    hub = Hub(429, headers=LIMIT | {"ratelimit-remaining": "57;w=21600"})
    with pytest.raises(RateLimitedError):
        hub.repository().resolve("3.11-slim")
    assert len(hub.asked) == 5


@pytest.mark.parametrize(("status", "kind"), [(401, UnauthorizedError), (403, ForbiddenError)])
def test_denied_push(status: int, kind: type[Exception]) -> None:
    """A push that is denied names what is usually the cause: login, scope of the access token, private repositories."""
    hub = Hub(status, json={"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]})
    with pytest.raises(kind) as caught:
        hub.repository("ada/flows").put_manifest("1", OCI_MANIFEST, b"{}")
    for cause in ("docker login", "access token", "limit of private repositories"):
        assert cause in str(caught.value)


def test_denied_pull() -> None:
    """A pull that is denied is about the login alone."""
    hub = Hub(401)
    with pytest.raises(UnauthorizedError) as caught:
        hub.repository("ada/flows").resolve("1")
    assert caught.value.remedy == "check that the repository exists, and log in: docker login"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "3;w=21600"}, "100 pulls in 6 hours"),
        ({"ratelimit-limit": "10;w=600", "ratelimit-remaining": "3"}, "10 pulls in 10 minutes"),
        ({"ratelimit-limit": "10", "ratelimit-remaining": "3"}, "10 pulls"),
        ({"ratelimit-limit": "10"}, "None"),
        ({"ratelimit-limit": "many", "ratelimit-remaining": "few"}, "None"),
        ({}, "None"),
    ],
)
def test_limit_in_words(headers: dict[str, str], words: str) -> None:
    """Headers are read where they say something, and shown as people would say it."""
    assert str(PullLimit.parse(headers)) == words


@pytest.mark.parametrize(
    ("host", "expected"), [("registry-1.docker.io", True), ("docker.io", True), ("evildocker.io", False)]
)
def test_hosts(host: str, expected: bool) -> None:  # noqa: FBT001 - a parameter
    """Docker Hub is its own domain and no other."""
    assert is_docker_hub(host) is expected
