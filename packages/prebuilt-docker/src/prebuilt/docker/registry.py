"""The registry ``local``."""

from __future__ import annotations

from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.docker.config import LocalRegistryConfig
from prebuilt.oci.registry import RepositoryRegistry


class LocalRegistry(RepositoryRegistry):
    """Keeps images in a registry of this machine or network, which tasks may know by another address."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Use what `settings` say; those of this process if None."""
        settings = settings or Settings.load()
        config = LocalRegistryConfig.from_settings(settings)
        super().__init__(f"{config.push or 'localhost:5000'}/{config.namespace}", settings=settings)


_: type[ImageRegistry] = LocalRegistry
