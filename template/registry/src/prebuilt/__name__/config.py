"""Settings of the registry ``__name__``."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt.core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Where images are kept.

    Attributes:
        repository: ``host/path`` (``METAFLOW_PREBUILT___NAME___REPOSITORY``).
    """

    repository: str

    @classmethod
    def from_settings(cls, settings: Settings) -> RegistryConfig:
        """Read the settings.

        Raises:
            SettingError: The repository is not set.
        """
        why = "the registry __name__ keeps images there"
        return cls(repository=settings.require("PREBUILT___NAME___REPOSITORY", why=why))
