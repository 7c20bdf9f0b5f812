"""A pull by Docker or Podman: tried again where that may help, with failures of registries told from those of the engine."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prebuilt.core.errors import ContainerError, PrebuiltError, RateLimitedError, RegistryUnreachableError
from prebuilt.core.retry import Backoff
from prebuilt.oci.containers.command_line import CommandLine
from prebuilt.oci.docker_hub import PULL_LIMIT_REMEDY, is_pull_limit
from prebuilt.oci.reference import parse_reference, split_repository

_TOO_MANY_REQUESTS = 429
_OF_ENGINE = re.compile(
    r"cannot connect to the docker daemon|error during connect|cannot connect to podman|no space left on device",
    re.IGNORECASE,
)
_RATE_LIMIT = re.compile(r"toomanyrequests|too many requests", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"\b50[0234]\b|timeout|timed out|deadline exceeded|request canceled|\bEOF\b|connection reset|broken pipe|connection refused"
    r"|no such host|temporary failure|network is unreachable|no route to host",
    re.IGNORECASE,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImagePull:
    """The pull of one image.

    Attributes:
        command_line: Of the engine, which pulls with its own credentials.
        reference: Of an image in a registry.
        options: Of ``pull``.
        backoff: How passing failures are met. The engines themselves try again for layers, but not to ask what there is.
    """

    command_line: CommandLine
    reference: str
    options: Sequence[str] = ()
    backoff: Backoff = field(default_factory=lambda: Backoff(attempts=4, base_s=2.0))
    sleep: Callable[[float], object] = time.sleep

    def pull(self) -> None:
        """Pull it.

        Raises:
            RegistryUnreachableError: The registry did not answer, also after waiting.
            RateLimitedError: It was asked too often.
            ContainerError: It refused, or the engine failed.
        """
        waits_s = self.backoff.waits_s()
        while True:
            try:
                self.command_line.do("pull", "--quiet", *self.options, self.reference)
            except ContainerError as error:
                failure = self._failure(error)
                wait_s = next(waits_s, None) if _is_passing(failure) else None
                if wait_s is None:
                    raise failure from error
                _log.info("pulling again in %.1f s: %s", wait_s, failure)
            else:
                return
            self.sleep(wait_s)

    def _failure(self, error: ContainerError) -> PrebuiltError:
        tried, host = error.tried, split_repository(parse_reference(self.reference).repository)[0]
        if _OF_ENGINE.search(error.reason):
            return error
        if _RATE_LIMIT.search(error.reason):
            remedy = PULL_LIMIT_REMEDY if is_pull_limit(error.reason, None) else "wait a while, or log in"
            return RateLimitedError(
                tried, at=self.reference, reason=error.reason, remedy=remedy, status=_TOO_MANY_REQUESTS
            )
        if _UNREACHABLE.search(error.reason):
            remedy = f"check that {self.command_line.program} reaches {host}"
            return RegistryUnreachableError(tried, at=self.reference, reason=error.reason, remedy=remedy)
        return error


def _is_passing(failure: PrebuiltError) -> bool:
    """Return whether it may be over soon; Docker Hub's limit on pulls is one for hours."""
    if isinstance(failure, RateLimitedError):
        return not is_pull_limit(failure.reason, None)
    return isinstance(failure, RegistryUnreachableError)
