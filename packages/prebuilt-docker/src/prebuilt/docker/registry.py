"""The registry ``local``."""

from __future__ import annotations

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.loopback import is_loopback
from prebuilt.core.settings import Settings
from prebuilt.core.spec import EnvId
from prebuilt.docker.config import LocalRegistryConfig
from prebuilt.docker.registry_container import RegistryContainer
from prebuilt.oci.config import host_name
from prebuilt.oci.reference import split_repository
from prebuilt.oci.registry import RepositoryRegistry


class LocalRegistry(RepositoryRegistry):
    """Keeps images in a registry of this machine or its network, which tasks may know by another address.

    Images, questions and documents go to the address for pushing; :meth:`pull_tag` alone has the one for pulling. Where no
    address is set, a container with a registry is started on loopback by the first call that needs it.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Use what `settings` say; those of this process if None. Nothing is asked or started.

        Raises:
            SettingError: An address is malformed.
        """
        settings = settings or Settings.load()
        self._config = LocalRegistryConfig.from_settings(settings)
        self._container = RegistryContainer(config=self._config, settings=settings)
        super().__init__(self._config.push or self._own_repository, settings=settings)

    @property
    def pull_repository(self) -> str:
        """Full name of the repository as tasks know it."""
        return self._config.pull or self.repository

    def pull_tag(self, env_id: EnvId) -> str:
        """Return the image's reference with the address that tasks pull from."""
        return _moved(self.image_tag(env_id), self.repository, self.pull_repository)

    def resolve(self, reference: str) -> Descriptor | None:
        """Return the manifest that is now served for `reference`; one to pull is looked for where it was pushed."""
        return super().resolve(_moved(reference, self.pull_repository, self.repository))

    def is_reachable_from_cluster(self) -> bool:
        """Return whether other machines can pull from here: not from an address on loopback, as our own container's is."""
        if self._config.pull is None:
            return False
        host, _ = split_repository(self._config.pull)
        return not is_loopback(host_name(host))

    def _own_repository(self) -> str:
        return f"{self._container.ensure()}/{self._config.namespace}"


def _moved(reference: str, old: str, new: str) -> str:
    """Return `reference` in the repository `new` if it is in `old`."""
    rest = reference.removeprefix(old)
    return f"{new}{rest}" if rest != reference and rest.startswith((":", "@")) else reference


_: type[ImageRegistry] = LocalRegistry
