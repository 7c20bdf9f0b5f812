"""Why a build failed, in the words of BuildKit and registries, and what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prebuilt.buildx.config import BUILDER_SETTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A cause of failures: what it is known by, and what to do. A remedy may name ``{host}`` and ``{builder}``."""

    known_by: re.Pattern[str]
    remedy: str


def _cause(known_by: str, remedy: str) -> Cause:
    return Cause(known_by=re.compile(known_by, re.IGNORECASE), remedy=remedy)


CAUSES = (
    _cause(
        r"no space left on device|disk quota exceeded",
        "free space on the builder, with `docker buildx prune --builder {builder}`",
    ),
    _cause(
        r"toomanyrequests|429 Too Many Requests",
        "wait, log in with `docker login` (a registry's limits are higher then), or use a base image from another registry",
    ),
    _cause(
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        'have the builder speak plain HTTP with it: [registry."{host}"] http = true in its buildkitd.toml',
    ),
    _cause(
        r"certificate signed by unknown authority|failed to verify certificate",
        'have the builder trust its certificate: [registry."{host}"] ca = ["…"] in its buildkitd.toml',
    ),
    _cause(
        r"exec format error",
        "the builder runs the build stage on another processor than its image is for: use a base image that an index lists "
        "for several platforms, a builder of the target's platform, or emulation (`docker run --privileged --rm "
        "tonistiigi/binfmt --install all`)",
    ),
    _cause(
        r"(cache export|multi-platform build|attestations?) (feature )?(is|are) not (currently )?supported for the docker driver",
        f"create a builder of another driver with `docker buildx create`, and name it in {BUILDER_SETTING}",
    ),
    _cause(
        r"401 Unauthorized|unauthorized:|authentication required|no basic auth credentials|failed to fetch oauth token",
        "log in with `docker login {host}`",
    ),
    _cause(
        r"403 Forbidden|insufficient_scope|access denied|denied:",
        "use an account that may push to the repository, and see that it exists",
    ),
    _cause(
        r"Cannot connect to the Docker daemon|failed to dial|failed to list workers|waiting for connection|"
        r"code = Unavailable|no active session|error reading from server",
        "see with `docker buildx inspect {builder}` whether the builder is up and not short of memory",
    ),
    _cause(
        r"dial tcp .*(connection refused|i/o timeout|no such host|no route to host)",
        "see whether the builder, rather than this machine, reaches that address",
    ),
)


def find_cause(lines: Sequence[str], *, host: str, builder: str) -> tuple[str, str]:
    """Return the reason that the last lines give, and a remedy; the remedy is empty where the cause is not known."""
    errors = [line for line in lines if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else (lines[-1] if lines else "it said nothing")
    text = "\n".join(lines)
    # The summary decides where it can: steps may have said anything before.
    for place in (reason, text):
        for cause in CAUSES:
            if cause.known_by.search(place):
                return reason, cause.remedy.format(host=host, builder=builder)
    return reason, ""
