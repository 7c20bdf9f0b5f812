"""The registry ``dockerhub``."""

from __future__ import annotations

from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.dockerhub.config import DockerHubConfig
from prebuilt.oci.reference import DEFAULT_HOST
from prebuilt.oci.registry import RepositoryRegistry


class DockerHubRegistry(RepositoryRegistry):
    """Keeps images in the repository ``docker.io/USER/NAMESPACE``, which the first push makes.

    Logins are those of ``docker login``. What Docker Hub refuses, the limit on pulls among it, :mod:`prebuilt.oci` explains,
    since base images are read from there by every other registry's users, too.
    """

    def __init__(self, settings: Settings | None = None, *, host: str = DEFAULT_HOST) -> None:
        """Use the account of `settings`; those of this process if None. `host` is another place with Docker Hub's API.

        Raises:
            SettingError: The account is not set, or cannot be one.
        """
        settings = settings or Settings.load()
        super().__init__(f"{host}/{DockerHubConfig.from_settings(settings).path}", settings=settings)


_: type[ImageRegistry] = DockerHubRegistry
