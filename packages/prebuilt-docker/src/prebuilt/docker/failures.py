"""What is behind the messages of engines and registries, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prebuilt.core.errors import (
    BuildError,
    EngineError,
    ForbiddenError,
    PrebuiltError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    UnauthorizedError,
)
from prebuilt.oci.amazon import engine_remedy
from prebuilt.oci.pulled_image import PulledImage

if TYPE_CHECKING:
    from docker.errors import APIError

_FREE_SPACE = "see what takes it with `docker system df`, and free it with `docker system prune`"
_QUERY = re.compile(r"\?\S*")  # of a URL: it has the build arguments, and proxies may have passwords
_CERTIFICATES = "give the engine the registry's certificate authority: the file ca.crt in /etc/docker/certs.d, in a folder named as the registry"


@dataclass(frozen=True, slots=True)
class _Known:
    pattern: re.Pattern[str]
    reason: str
    remedy: str
    is_of_steps: bool = False
    """Whether it is known by what steps say, too. What they say of logins and limits is about package indexes, not registries."""


def _known(pattern: str, reason: str, remedy: str, *, is_of_steps: bool = False) -> _Known:
    return _Known(re.compile(pattern, re.IGNORECASE), reason, remedy, is_of_steps)


_BUILD_FAILURES = (
    _known(r"no space left on device|disk quota exceeded", "the engine's disk is full", _FREE_SPACE, is_of_steps=True),
    _known(
        r"cannot connect to the docker daemon|error during connect", "the engine stopped answering", "look into its log"
    ),
    _known(
        r"toomanyrequests|too many requests|pull rate limit",
        "the registry of {image} limits pulls",
        "log in, which raises the limit (docker login {host}), or set {setting} to a copy in a registry of your own",
    ),
    _known(
        r"pull access denied|no basic auth credentials|authentication required|incorrect username or password"
        r"|failed to authorize.*\b40[13]\b|unexpected status from .*: 40[13]|unauthorized|insufficient_scope",
        "the registry of {image} did not let the engine pull it",
        "log in to that registry (docker login {host}), and check {setting}",
    ),
    _known(
        r"no match for platform in manifest|no matching manifest for",
        "{image} does not exist for the engine's own platform, on which the build stage runs",
        "use a base image whose index lists that too, or set METAFLOW_PREBUILT_BUILD_IMAGE to an image for it with the same Python",
    ),
    _known(
        r"manifest unknown|manifest for .* not found|failed to resolve source metadata.*not found",
        "{image} is not there",
        "check {setting} and that the engine reaches that registry",
    ),
    _known(
        r"server gave HTTP response to HTTPS client",
        "the registry of {image} speaks plain HTTP, and the engine wants TLS",
        "list it under insecure-registries in the engine's daemon.json",
    ),
    _known(r"certificate signed by unknown authority", "the engine does not trust a certificate", _CERTIFICATES),
    _known(
        # The words of Go, in which engines pull; steps are Python, and what they cannot reach is below.
        r"\bdial tcp\b|no such host|Client\.Timeout|TLS handshake timeout|i/o timeout|server misbehaving",
        "the engine does not reach the registry of {image}",
        "check the engine's own network, DNS and proxy, or set {setting} to a copy in a registry that it reaches",
    ),
    _known(
        r"temporary failure in name resolution|name or service not known|could not resolve host|network is unreachable",
        "a step of the build has no network, or cannot resolve names",
        "set METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK=host, or the engine's DNS; or have packages travel from here:"
        " METAFLOW_PREBUILT_SEND_PACKAGES=1",
        is_of_steps=True,
    ),
    _known(
        r"exec format error",
        "a step of the build was started on a processor of another architecture",
        "use a base image that exists for the engine's own platform too, or the builder native",
        is_of_steps=True,
    ),
)
_OF_THE_BASE = PulledImage.find(None, None)


def build_failure(at: str, reason: str, output: Sequence[str] = (), pulled: PulledImage = _OF_THE_BASE) -> BuildError:
    """Return the error for a build of the image `at` that ended with `reason`, which may be all that is known.

    Args:
        at: What was built.
        reason: In the engine's words.
        output: The last lines.
        pulled: What could not be pulled, if that is why.
    """
    known = _known_failure(reason, output)
    words = {"image": pulled.noun, "setting": pulled.setting, "host": pulled.host or "HOST"}
    remedy = known.remedy.format(**words) if known else "see what it said" if output else ""
    return BuildError(
        "build an image with Docker",
        at=at,
        reason=f"{known.reason.format(**words)} ({reason})" if known else reason,
        remedy=engine_remedy(reason, pulled.host) or remedy,
        output=output,
    )


def _known_failure(reason: str, output: Sequence[str]) -> _Known | None:
    said = "\n".join((reason, *output))
    return next(
        (known for known in _BUILD_FAILURES if known.pattern.search(said if known.is_of_steps else reason)), None
    )


def too_slow(at: str, timeout_s: float, output: Sequence[str]) -> BuildError:
    """Return the error for a build and push that took longer than they may."""
    return BuildError(
        "build and push an image with Docker",
        at=at,
        reason=f"it was stopped after {timeout_s:.0f} s",
        remedy="set METAFLOW_PREBUILT_DOCKER_TIMEOUT to more seconds",
        output=output,
    )


def cut_off(tried: str, at: str, error: Exception) -> EngineError:
    """Return the error for an engine that went away in the middle of its answer."""
    why = _QUERY.sub("", str(error))
    return EngineError(
        tried, at=at, reason=f"the engine cut the connection ({why})", remedy="look into its log, and try again"
    )


def answer_of(error: APIError) -> str:
    """Return what the engine said with an error status. The SDK's own text has the request in it, build arguments included."""
    return str(error.explanation or f"the engine answered {error.status_code}").strip()


@dataclass(frozen=True, slots=True)
class _KnownRefusal:
    pattern: re.Pattern[str]
    error: type[RegistryError]
    remedy: str
    status: int | None = None


def _refusal(pattern: str, error: type[RegistryError], remedy: str, status: int | None = None) -> _KnownRefusal:
    return _KnownRefusal(re.compile(pattern, re.IGNORECASE), error, remedy, status)


_FULL = re.compile(r"no space left on device", re.IGNORECASE)
_PUSH_FAILURES = (
    _refusal(
        r"server gave HTTP response to HTTPS client",
        RegistryError,
        "list {host} under insecure-registries in the engine's daemon.json",
    ),
    _refusal(r"certificate signed by unknown authority", RegistryError, _CERTIFICATES),
    _refusal(r"toomanyrequests|too many requests|\b429\b", RateLimitedError, "wait, or push less at a time", 429),
    _refusal(
        r"unauthorized|authentication required|no basic auth|incorrect username or password|\b401\b",
        UnauthorizedError,
        "log in: docker login {host}",
        401,
    ),
    _refusal(
        r"denied|forbidden|insufficient_scope|\b403\b",
        ForbiddenError,
        "log in as somebody who may push there (docker login {host}), and check that the repository exists",
        403,
    ),
    _refusal(
        r"\b50[0234]\b|timeout|timed out|\bEOF\b|connection reset|broken pipe|connection refused|no such host"
        r"|temporary failure",
        RegistryUnreachableError,
        "check that the engine reaches {host}",
    ),
)


def push_failure(at: str, reason: str) -> PrebuiltError:
    """Return the error for a push of the image `at` that ended with `reason`."""
    tried, host = "push an image with Docker", at.partition("/")[0]
    if _FULL.search(reason):
        return BuildError(tried, at=at, reason=f"the engine's disk is full ({reason})", remedy=_FREE_SPACE)
    known = next((known for known in _PUSH_FAILURES if known.pattern.search(reason)), None)
    if known is None:
        return RegistryError(tried, at=at, reason=reason)
    remedy = engine_remedy(reason, host) or known.remedy.format(host=host)
    return known.error(tried, at=at, reason=reason, remedy=remedy, status=known.status)


def is_passing(error: PrebuiltError) -> bool:
    """Return whether what `error` reports of a push may be over soon."""
    return isinstance(error, (RateLimitedError, RegistryUnreachableError))
