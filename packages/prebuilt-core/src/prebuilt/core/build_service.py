"""The contract of builders: what outside classes implement, and the typed form that ours do."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import BuildError, CancelledError
from prebuilt.core.plan import LayerPlan
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import ImageSpec


class Cancellation:
    """A flag that the first failure raises and that long work looks at."""

    def __init__(self) -> None:
        """Start unraised."""
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask all who look to stop."""
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether work should stop."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Sleep up to `timeout_s` seconds; return True at once when cancelled."""
        return self._event.wait(timeout_s)

    def check(self) -> None:
        """Raise :class:`CancelledError` if work should stop."""
        if self.is_cancelled:
            raise CancelledError("go on", reason="other work failed or was stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One image to build and push.

    Attributes:
        spec: What.
        plan: How it is layered.
        reference: Where to push it: ``host/repository:tag``, or ``oci:/folder:tag`` for an image layout.
        credentials: For the registry; None to use what Docker's configuration has.
        cancellation: Looked at between steps of the work.
    """

    spec: ImageSpec
    plan: LayerPlan
    reference: str
    credentials: Credentials | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)


@dataclass(frozen=True)
class DockerfileBuildOptions:
    """What a builder of Dockerfiles can do beyond the classic form (published in 0.3)."""

    buildkit_deferred_input_mounts: bool = False
    bootstrap_pip_install_options: tuple[str, ...] = ()


class DockerBuildService(ABC):
    """Builds an image and pushes it. The selected class is called with no arguments.

    An outside class needs :meth:`build_and_push` alone. A class that takes specs rather than Dockerfiles overrides
    :meth:`build`.
    """

    @abstractmethod
    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Build `dockerfile` and push it as `image_tag`.

        Args:
            dockerfile: Its text.
            context_files: POSIX file name to ``str`` or ``bytes``.
            image_tag: What to push.
            push_credentials: What the registry's ``push_credentials()`` returned.
            echo: Takes a message and any keyword.
            target_platform: ``linux/amd64``; None for the builder's own. Classes of 0.2 lack it.

        Returns:
            False if the build failed.
        """

    def build(self, request: BuildRequest, progress: ImageProgress) -> Descriptor | None:
        """Build and push `request`; return the manifest's descriptor, or None where the builder cannot know it.

        Raises:
            BuildError: This builder takes Dockerfiles only, and the installed release renders none.
        """
        del progress
        raise BuildError(
            f"build {request.spec.full_id} with {type(self).__name__}",
            reason="it builds Dockerfiles, and this release of prebuilt-core renders none",
            remedy="set METAFLOW_PREBUILT_BUILD_SERVICE=native",
        )

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return what the builder can do beyond the classic form."""
        return DockerfileBuildOptions()

    def image_identity_suffix(self) -> str:
        """Return what distinguishes images of this builder from others of the same spec; usually nothing."""
        return ""

    @classmethod
    def from_config(cls) -> DockerBuildService:
        """Return a builder configured from the settings."""
        return cls()
