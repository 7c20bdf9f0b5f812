"""Why a build failed, in the words of BuildKit and registries, and what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prebuilt.buildx.config import BUILDER_SETTING

_PULLED = re.compile(r"source metadata for ([^/\s]+)/")
"""The registry of a base image that could not be pulled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A cause of failures.

    Attributes:
        known_by: Found in the reason that BuildKit gives.
        remedy: What to do; it may name ``{host}`` and ``{builder}``.
        is_of_steps: Whether it is known by what a failed step said, too. What steps say of logins and addresses is about package
            indexes, and not about the registry.
    """

    known_by: re.Pattern[str]
    remedy: str
    is_of_steps: bool = False


def _cause(known_by: str, remedy: str, *, is_of_steps: bool = False) -> Cause:
    return Cause(known_by=re.compile(known_by, re.IGNORECASE), remedy=remedy, is_of_steps=is_of_steps)


CAUSES = (
    _cause(
        r"no space left on device|disk quota exceeded",
        "free space on the builder, with `docker buildx prune --builder {builder}`",
        is_of_steps=True,
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
        is_of_steps=True,
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
        r"Cannot connect to the Docker daemon|failed to dial|failed to list workers|context deadline exceeded|"
        r"code = Unavailable|no active session|error reading from server",
        "see with `docker buildx inspect {builder}` whether the builder is up and not short of memory",
    ),
    _cause(
        r"no match for platform in manifest",
        "use a base image whose index lists the builder's own platform, on which the build stage runs, or set "
        "METAFLOW_PREBUILT_BUILD_IMAGE to an image for that with the same Python",
    ),
    _cause(
        r"failed to resolve source metadata for .*not found",
        "check METAFLOW_PREBUILT_BASE_IMAGE, and that the builder reaches the same {host} as this machine",
    ),
    _cause(
        r"dial tcp .*(connection refused|i/o timeout|no such host|no route to host)",
        "see whether the builder, rather than this machine, reaches that address",
    ),
)


def find_cause(lines: Sequence[str], *, host: str, builder: str) -> tuple[str, str]:
    """Return the reason that the last lines give, and a remedy; the remedy is empty where the cause is not known.

    Args:
        lines: What the builder said last.
        host: The registry that was to be pushed to.
        builder: The builder's name.
    """
    errors = [line for line in lines if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else (lines[-1] if lines else "it said nothing")
    pulled = _PULLED.search(reason)
    for text, causes in (reason, CAUSES), ("\n".join(lines), [cause for cause in CAUSES if cause.is_of_steps]):
        for cause in causes:
            if cause.known_by.search(text):
                return reason, cause.remedy.format(host=pulled[1] if pulled else host, builder=builder)
    return reason, ""
