"""Settings of the registry ``dockerhub``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.namespace import image_namespace

_ACCOUNT = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerHubConfig:
    """Where images are kept.

    Attributes:
        user: The account or organization (``METAFLOW_PREBUILT_DOCKERHUB_USER``).
        namespace: The repository's name below it (``METAFLOW_PREBUILT_IMAGE_NAMESPACE``).
    """

    user: str
    namespace: str

    @classmethod
    def from_settings(cls, settings: Settings) -> DockerHubConfig:
        """Read the settings.

        Raises:
            SettingError: The user is not set or cannot be one, or the namespace has more than one part.
        """
        why = "the registry dockerhub keeps images in a repository of that account"
        user, namespace = settings.require("PREBUILT_DOCKERHUB_USER", why=why), image_namespace(settings)
        if not _ACCOUNT.fullmatch(user):
            raise SettingError(
                "METAFLOW_PREBUILT_DOCKERHUB_USER",
                reason=f"{user!r} is no account of Docker Hub",
                remedy="write your Docker ID or the name of an organization: lower-case letters and digits, no e-mail address",
            )
        if "/" in namespace:
            raise SettingError(
                "METAFLOW_PREBUILT_IMAGE_NAMESPACE",
                reason=f"{namespace!r} has a slash, and Docker Hub has no repositories below repositories",
                remedy="write one name",
            )
        return cls(user=user, namespace=namespace)

    @property
    def path(self) -> str:
        """``user/namespace``."""
        return f"{self.user}/{self.namespace}"
