"""One image to build: what both of Docker's builders are given."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prebuilt.core.build_service import Cancellation
from prebuilt.core.context_archive import context_archive
from prebuilt.core.tree import Content
from prebuilt.oci.docker_config import Login


class DeadlineError(Exception):
    """The time was up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends work early.

    Attributes:
        cancellation: Somebody else's wish.
        timeout_s: How long the work may take, for messages.
        deadline_s: When that is over, by the monotonic clock.
    """

    cancellation: Cancellation
    timeout_s: float
    deadline_s: float

    @classmethod
    def start(cls, cancellation: Cancellation, timeout_s: float) -> Limits:
        """Return limits whose time begins now."""
        return cls(cancellation=cancellation, timeout_s=timeout_s, deadline_s=time.monotonic() + timeout_s)

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.deadline_s - time.monotonic())

    def check(self) -> None:
        """Raise if work should stop.

        Raises:
            CancelledError: Somebody wished so.
            DeadlineError: The time is up.
        """
        self.cancellation.check()
        if not self.left_s:
            raise DeadlineError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuild:
    """One image to build.

    Attributes:
        dockerfile: Its text.
        context: The other files, by POSIX name.
        platform: What the image is for: ``linux/amd64``; None for the engine's own platform.
        arguments: Build arguments: proxies.
        network: What its steps are connected to; None for the engine's default.
        limits: What ends it early.
        output: Is given each line that the builder says.
        logins: By registry, beside those of Docker's file.
        stage_image: What its build stage runs in, where that is not the base; for messages.
        name: Under which it is in the engine until it is pushed: its own, so that builds of one image do not disturb each other.
    """

    dockerfile: str
    context: Mapping[str, Content]
    platform: str | None
    arguments: Mapping[str, str]
    network: str | None
    limits: Limits
    output: Callable[[str], None]
    logins: Mapping[str, Login] = field(default_factory=dict)
    stage_image: str | None = None
    name: str = field(default_factory=lambda: f"metaflow-prebuilt-build:{secrets.token_hex(8)}")

    def archive(self) -> Iterator[bytes]:
        """Yield the context with the Dockerfile as a tar archive; raise as :meth:`Limits.check` does."""
        for chunk in context_archive(self.dockerfile, self.context):
            self.limits.check()
            yield chunk
