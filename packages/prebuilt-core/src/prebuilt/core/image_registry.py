"""The contract of registries: what outside classes implement, and the typed additions that ours do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import DocumentStore
from prebuilt.core.platforms import Platform
from prebuilt.core.plugin_calls import called
from prebuilt.core.spec import EnvId


class ImageRegistry(ABC):
    """Names images and says what is there. The selected class is called with no arguments.

    An outside class needs the three abstract methods alone.
    """

    @abstractmethod
    def image_tag(self, env_id: EnvId) -> str:
        """Return the image reference for `env_id`: ``host/repository:tag``."""

    @abstractmethod
    def push_credentials(self) -> dict[str, Any]:
        """Return what an outside builder needs in order to push; ours use :meth:`credentials`."""

    @abstractmethod
    def pull_config(self, pull_tag: str) -> dict[str, Any]:
        """Return attributes to set on the step's compute decorator so that it can pull `pull_tag`."""

    def push_tag(self, env_id: EnvId) -> str:
        """Return the reference to push to, where it differs from the one to pull."""
        return called(self.image_tag, env_id)

    def pull_tag(self, env_id: EnvId) -> str:
        """Return the reference that tasks pull, where it differs from the one to push."""
        return called(self.image_tag, env_id)

    def image_exists(self, push_tag: str) -> bool:
        """Return whether `push_tag` is there; False where that cannot be asked, which builds each time."""
        return self.resolve(push_tag) is not None

    def base_image_identity(self, base_image: str, arch: str) -> str:
        """Return what identifies `base_image` for `arch`: a digest where it can be had."""
        del arch
        return base_image

    def image_tag_for_named(self, name: str) -> str:
        """Return the reference of a named environment."""
        msg = f"{type(self).__name__} has no named environments"
        raise NotImplementedError(msg)

    def push_tag_for_named(self, name: str) -> str:
        """Return the reference to push a named environment to."""
        return self.image_tag_for_named(name)

    def pull_tag_for_named(self, name: str) -> str:
        """Return the reference from which a named environment is pulled."""
        return self.image_tag_for_named(name)

    @classmethod
    def from_config(cls) -> ImageRegistry:
        """Return a registry configured from the settings."""
        return cls()

    # Additions with working defaults; absence of an answer is None, a failure to ask is an error.

    def resolve(self, reference: str) -> Descriptor | None:
        """Return the manifest that the registry now serves for `reference`; None if there is none, or none can be asked for.

        Raises:
            RegistryError: It could not be asked.
        """
        del reference
        return None

    def labels(self, reference: str, platform: Platform) -> Mapping[str, str]:
        """Return the labels of the image for `platform` that is now served for `reference`; empty where that cannot be asked.

        Raises:
            BaseImageError: It is for other platforms only.
            InvalidValueError: It is no image.
            RegistryError: It could not be asked.
        """
        del reference, platform
        return {}

    def check_pull(self, reference: str) -> None:
        """Make sure that tasks can pull `reference`, as far as that can be told from here; called before any of them starts.

        Raises:
            RegistryError: They cannot.
        """
        del reference

    def credentials(self, reference: str) -> Credentials | None:
        """Return credentials to push `reference` with; None to use what Docker's configuration has.

        An outside class gives them as ``username`` and ``password`` of its :meth:`push_credentials`.
        """
        del reference
        return Credentials.published(called(self.push_credentials) or {})

    def documents(self) -> DocumentStore | None:
        """Return where locks and other small documents are kept beside the images; None where nothing can be kept."""
        return None

    def is_reachable_from_cluster(self) -> bool:
        """Return whether other machines can pull from here. A layout is a folder of this machine: False."""
        return True
