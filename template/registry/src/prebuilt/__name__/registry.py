"""The registry ``__name__``."""

from __future__ import annotations

from prebuilt.__name__.config import RegistryConfig
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.oci.registry import RepositoryRegistry


class __Title__Registry(RepositoryRegistry):
    """Keeps images in the repository that ``METAFLOW_PREBUILT___NAME___REPOSITORY`` names.

    Override ``credentials`` where logins come from a cloud's SDK (import it there, not up here), and ``pull_config`` where
    tasks must be told how to pull.
    """

    def __init__(self) -> None:
        """Read the settings."""
        settings = Settings.load()
        super().__init__(RegistryConfig.from_settings(settings).repository, settings=settings)


_: type[ImageRegistry] = __Title__Registry
