"""What is particular about Docker Hub: what its refusals mean, and what helps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_DOMAIN = "docker.io"
_WRITING = frozenset({"POST", "PUT", "PATCH"})
_LIMIT = re.compile(r"(\d+)(?:;w=(\d+))?")
_HOUR_S, _MINUTE_S = 3600, 60

PULL_LIMIT_REMEDY = (
    "Docker Hub limits how many images one account, or one address without an account, may pull in some hours: log in"
    " (docker login), wait, or set METAFLOW_PREBUILT_BASE_IMAGE to a copy in your own registry or in a mirror"
)
_PUSH_REMEDY = (
    "check that you are logged in (docker login) as an account that may push there, that its access token has the"
    " permission to write, and that the plan's limit of private repositories is not reached"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimit:
    """How many pulls Docker Hub allows, as an answer's headers say; mirrors pass them on.

    Attributes:
        pulls: In one window.
        window_s: How long a window is.
        remaining: Pulls that are left in this one.
        source: Whom they are counted for: an address, or the id of an account; empty where it is not said.

    Source: https://docs.docker.com/docker-hub/usage/pulls/
    """

    pulls: int
    window_s: int
    remaining: int
    source: str

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> PullLimit | None:
        """Read the headers, whose names are in lower case; None where there is no limit."""
        limit = _LIMIT.match(headers.get("ratelimit-limit", ""))
        remaining = _LIMIT.match(headers.get("ratelimit-remaining", ""))
        if limit is None or remaining is None:
            return None
        return cls(
            pulls=int(limit[1]),
            window_s=int(limit[2] or 0),
            remaining=int(remaining[1]),
            source=headers.get("docker-ratelimit-source", ""),
        )

    def __str__(self) -> str:
        """Return it in words: ``100 pulls in 6 hours for 203.0.113.7``."""
        hours, minutes = self.window_s // _HOUR_S, self.window_s // _MINUTE_S
        window = f" in {hours} hours" if hours else f" in {minutes} minutes" if minutes else ""
        return f"{self.pulls} pulls{window}{f' for {self.source}' if self.source else ''}"


def is_docker_hub(host: str) -> bool:
    """Return whether `host` is Docker Hub's registry or its token service."""
    return host == _DOMAIN or host.endswith(f".{_DOMAIN}")


def is_pull_limit(message: str, limit: PullLimit | None) -> bool:
    """Return whether a 429 is the limit on pulls, which is for hours, and not one on how fast requests come."""
    return "pull rate limit" in message.lower() or (limit is not None and limit.remaining == 0)


def denied_push_remedy(method: str, url: str) -> str:
    """Return what helps where Docker Hub refused to store something; empty for reads, and for its token service."""
    return _PUSH_REMEDY if method in _WRITING and "/v2/" in url else ""
