"""Settings of the builder ``docker``."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt.core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerBuildConfig:
    """How the builder ``docker`` builds.

    Attributes:
        builder: ``buildkit``, ``classic``, or ``auto`` for the better one that is there (``METAFLOW_PREBUILT_DOCKER_BUILDER``).
        network: What the steps of builds are connected to (``METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK``); None for the engine's default.
        keeps_images: Whether images stay in the engine when they are pushed (``METAFLOW_PREBUILT_DOCKER_KEEP_LOCAL``).
        timeout_s: How long one build with its push may take (``METAFLOW_PREBUILT_DOCKER_TIMEOUT``).
    """

    builder: str = "auto"
    network: str | None = None
    keeps_images: bool = False
    timeout_s: float = 7200.0

    @classmethod
    def from_settings(cls, settings: Settings) -> DockerBuildConfig:
        """Read the settings."""
        return cls(
            builder=settings.choice("PREBUILT_DOCKER_BUILDER", ("auto", "buildkit", "classic"), default="auto"),
            network=settings.get("PREBUILT_DOCKER_BUILD_NETWORK"),
            keeps_images=settings.flag("PREBUILT_DOCKER_KEEP_LOCAL", default=False),
            timeout_s=float(settings.positive_int("PREBUILT_DOCKER_TIMEOUT", default=7200)),
        )
