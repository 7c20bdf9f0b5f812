"""Settings of the registry ``local``."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt.core.settings import Settings

PUSH, PULL = "PREBUILT_LOCAL_REGISTRY_PUSH", "PREBUILT_LOCAL_REGISTRY_PULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRegistryConfig:
    """Where the registry ``local`` is.

    Attributes:
        push: ``host[:port]``, and a path where one is wanted, that images are pushed to (``METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH``).
        pull: The same registry as tasks know it (``METAFLOW_PREBUILT_LOCAL_REGISTRY_PULL``).
        namespace: The repository below (``METAFLOW_PREBUILT_IMAGE_NAMESPACE``).
    """

    push: str | None
    pull: str | None
    namespace: str

    @classmethod
    def from_settings(cls, settings: Settings) -> LocalRegistryConfig:
        """Read the settings. Where one address is set, it serves for both."""
        push, pull = settings.get(PUSH), settings.get(PULL)
        return cls(
            push=push or pull,
            pull=pull or push,
            namespace=settings.get("PREBUILT_IMAGE_NAMESPACE", "metaflow-prebuilt") or "",
        )
