"""The registry ``oci``: any registry of the distribution API, by the name of a repository."""

from __future__ import annotations

from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.oci.reference import is_layout, parse_repository
from prebuilt.oci.registry import RepositoryRegistry

SETTING = "METAFLOW_PREBUILT_REGISTRY"
_EXAMPLE = "write host/repository, for example ghcr.io/my-team/metaflow-prebuilt"


class OCIRegistry(RepositoryRegistry):
    """Keeps images in the repository that ``METAFLOW_PREBUILT_REGISTRY`` names: on GHCR, ACR, Harbor, Quay, GitLab, anywhere.

    Logins are those of ``docker login``, ``podman login`` and their credential helpers.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Use the repository of `settings`; those of this process if None.

        Raises:
            SettingError: It is not set, or names no repository in a registry.
        """
        settings = settings or Settings.load()
        super().__init__(configured_repository(settings), settings=settings)


def configured_repository(settings: Settings) -> str:
    """Return ``METAFLOW_PREBUILT_REGISTRY``, ``host[:port]/repository``.

    Raises:
        SettingError: It is not set, or is something else.
    """
    text = settings.get("PREBUILT_REGISTRY")
    if text is None:
        reason = "it is not set, and the registry oci keeps images there"
        raise SettingError(SETTING, reason=reason, remedy=_EXAMPLE)
    if is_layout(text):
        folder = text.partition(":")[2] or "/folder"
        raise SettingError(
            SETTING,
            reason=f"{text!r} is an image layout, a folder of this machine",
            remedy=f"set METAFLOW_PREBUILT_IMAGE_REGISTRY=layout and METAFLOW_PREBUILT_LAYOUT={folder}",
        )
    try:
        repository = parse_repository(text)
    except InvalidValueError as error:
        raise SettingError(SETTING, reason=f"{text!r} is no repository: {error.reason}", remedy=_EXAMPLE) from error
    if not text.startswith(f"{repository.partition('/')[0]}/"):
        # Docker would take it for a repository on Docker Hub, which is hardly what somebody means who writes it here.
        reason = f"{text!r} has no host" if "/" in text else f"{text!r} has no repository, or no host"
        raise SettingError(SETTING, reason=reason, remedy=f"{_EXAMPLE}; a host has a dot or a port")
    return repository


_: type[ImageRegistry] = OCIRegistry
