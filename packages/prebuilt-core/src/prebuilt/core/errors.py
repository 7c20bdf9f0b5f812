"""Every error that metaflow-prebuilt raises on purpose.

::

    PrebuiltError
    ├── SettingError            a setting is malformed or missing
    ├── PluginError             no such builder or registry, or it cannot be made
    ├── InvalidValueError       a value type was given something it cannot be
    ├── ResolveError            requirements have no solution, or no usable file
    ├── FetchError              a package file could not be downloaded
    ├── PackageError            a package file is malformed, or does what is refused
    ├── DigestMismatchError     bytes are not what their digest says
    ├── BaseImageError          the base image cannot serve
    ├── RegistryError           a registry (or layout) answered with a failure
    │   ├── RegistryUnreachableError    no answer: refused, timed out, TLS, DNS
    │   ├── UnauthorizedError           401: who are you?
    │   ├── ForbiddenError              403: not allowed
    │   └── RateLimitedError            429: too many requests
    ├── BuildError              a builder failed
    ├── StorageError            local disk: full, unwritable, damaged
    ├── EngineError             a container engine does not answer, or refuses us
    ├── ContainerError          a container could not be run
    ├── CancelledError          stopped because something else failed, or by Ctrl-C
    └── BakeError               one or more images failed; holds every failure

A message reads *tried to X at Y: reason; do Z*. Secrets are redacted where an error is made: see :func:`redact`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

_SIGNATURE = re.compile(
    r"(?i)((?:x-amz-|x-goog-)?(?:signature|credential|security-token|token|sig|password|secret|access_token)=)[^&\s\"']+"
)
_USERINFO = re.compile(r"(?i)\b(https?://)[^/\s\"']+@")  # to the last @: a password may have one, as it is written
_CONDA_TOKEN = re.compile(r"(?i)\b(https?://\S*?/t/)[^/\s\"')]+")


def redact(text: str) -> str:
    """Return `text` without URL credentials, tokens of conda channels (``/t/…``) and the values of signed query parameters."""
    return _SIGNATURE.sub(r"\1***", _CONDA_TOKEN.sub(r"\1***", _USERINFO.sub(r"\1", text)))


def without_credentials(url: str) -> str:
    """Return `url` with its userinfo removed; nothing else changes."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class PrebuiltError(Exception):
    """Base of all errors made here.

    Attributes:
        tried: What was being done, as an infinitive: ``"push layer numpy"``.
        at: Where: a URL, a path, an image reference; empty where the place says nothing.
        reason: Why it failed.
        remedy: What the user can do about it; empty where there is nothing to add.
    """

    def __init__(self, tried: str, *, at: str = "", reason: str, remedy: str = "") -> None:
        """Keep the four parts, redacted."""
        self.tried, self.at, self.reason, self.remedy = (redact(part) for part in (tried, at, reason, remedy))
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return *tried to X at Y: reason; do Z*."""
        place = f" at {self.at}" if self.at else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"tried to {self.tried}{place}: {self.reason}{remedy}"


class SettingError(PrebuiltError):
    """A setting is malformed or missing."""

    def __init__(self, name: str, *, reason: str, remedy: str = "", at: str = "") -> None:
        """Name the setting and say where its value came from."""
        self.name = name
        super().__init__(f"read the setting {name}", at=at, reason=reason, remedy=remedy)


class PluginError(PrebuiltError):
    """A builder or registry is not installed, or could not be made."""


class InvalidValueError(PrebuiltError, ValueError):
    """A value type was given something it cannot be."""

    def __init__(self, what: str, value: object, *, reason: str, remedy: str = "") -> None:
        """Say what `value` should have been."""
        self.value = value
        super().__init__(f"read {value!r} as {what}", reason=reason, remedy=remedy)


class ResolveError(PrebuiltError):
    """The requirements have no solution, or none that has a usable file for the platform."""


class FetchError(PrebuiltError):
    """A package file could not be downloaded."""


class PackageError(PrebuiltError):
    """A package file is malformed, or does what is refused: writes outside its prefix, or needs a script to be run."""


class DigestMismatchError(PrebuiltError):
    """Bytes are not what their digest says; they were not used."""

    def __init__(self, tried: str, *, at: str = "", expected: str, actual: str, remedy: str = "") -> None:
        """Name both digests."""
        self.expected, self.actual = expected, actual
        super().__init__(tried, at=at, reason=f"expected {expected}, got {actual}", remedy=remedy)


class BaseImageError(PrebuiltError):
    """The base image is absent, for another platform, or lacks what every task needs."""


class RegistryError(PrebuiltError):
    """A registry or an image layout answered with a failure.

    Attributes:
        status: HTTP status, or None where there was no HTTP answer.
        code: The registry's own error code (``MANIFEST_UNKNOWN``), or an empty string.
    """

    def __init__(
        self, tried: str, *, at: str = "", reason: str, remedy: str = "", status: int | None = None, code: str = ""
    ) -> None:
        """Keep the status and code beside the message."""
        self.status, self.code = status, code
        super().__init__(tried, at=at, reason=reason, remedy=remedy)


class RegistryUnreachableError(RegistryError):
    """No answer came: refused, timed out, no such host, TLS failure, connection cut."""


class UnauthorizedError(RegistryError):
    """401: the registry does not know who asks."""


class ForbiddenError(RegistryError):
    """403: the registry knows who asks, and refuses."""


class RateLimitedError(RegistryError):
    """429: too many requests, also after waiting."""


class BuildError(PrebuiltError):
    """A builder failed.

    Attributes:
        output: The last lines of the failed tool, oldest first; empty where no tool ran.
    """

    def __init__(self, tried: str, *, at: str = "", reason: str, remedy: str = "", output: Sequence[str] = ()) -> None:
        """Keep at most the last 50 lines of `output`."""
        self.output = tuple(redact(line) for line in output[-50:])
        super().__init__(tried, at=at, reason=reason, remedy=remedy)

    def __str__(self) -> str:
        """Append the tool's last lines to the message."""
        return "\n".join((super().__str__(), *self.output))


class StorageError(PrebuiltError):
    """The local disk is full, not writable, or holds damaged data."""


class EngineError(PrebuiltError):
    """A container engine (Docker) does not answer, or refuses us."""


class ContainerError(PrebuiltError):
    """A container could not be run."""


class CancelledError(PrebuiltError):
    """Work was stopped because other work failed, or because the user asked."""


class BakeError(PrebuiltError):
    """One or more images could not be baked.

    Attributes:
        failures: The error of each failed image, by the names of the steps that wanted it.
    """

    def __init__(self, failures: Mapping[str, BaseException]) -> None:
        """Name every failure, those that say the same once; the first is the one that stopped the rest."""
        self.failures = dict(failures)
        steps_of: dict[str, list[str]] = {}
        for steps, failure in self.failures.items():
            steps_of.setdefault(str(failure), []).append(steps)
        if len(steps_of) == 1:
            [(said, steps_with_it)] = steps_of.items()
            images = "the image" if len(steps_with_it) == 1 else "the images"
            super().__init__(f"bake {images} of {', '.join(steps_with_it)}", reason=said)
        else:
            lines = (f"  {', '.join(steps_with_it)}: {said}" for said, steps_with_it in steps_of.items())
            super().__init__(f"bake {len(self.failures)} images", reason="\n".join(("they failed", *lines)))
