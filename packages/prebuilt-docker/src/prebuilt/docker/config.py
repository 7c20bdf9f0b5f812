"""Settings of the registry ``local``."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.namespace import DEFAULT_NAMESPACE, image_namespace
from prebuilt.oci.reference import parse_repository

PUSH, PULL = "PREBUILT_LOCAL_REGISTRY_PUSH", "PREBUILT_LOCAL_REGISTRY_PULL"
IMAGE, PORT = "PREBUILT_LOCAL_REGISTRY_IMAGE", "PREBUILT_LOCAL_REGISTRY_PORT"
_DEFAULT_IMAGE, _DEFAULT_PORT, _HIGHEST_PORT = "registry:2", 5000, 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRegistryConfig:
    """Where the registry ``local`` is.

    Attributes:
        push: The repository that is pushed to, below ``METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH``; None for one of our own container.
        pull: The same repository as tasks know it, below ``METAFLOW_PREBUILT_LOCAL_REGISTRY_PULL``.
        namespace: The repository's name, below either (``METAFLOW_PREBUILT_IMAGE_NAMESPACE``).
        image: What the container is made of (``METAFLOW_PREBUILT_LOCAL_REGISTRY_IMAGE``).
        port: Where on loopback it is published (``METAFLOW_PREBUILT_LOCAL_REGISTRY_PORT``).
    """

    push: str | None = None
    pull: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    image: str = _DEFAULT_IMAGE
    port: int = _DEFAULT_PORT

    @classmethod
    def from_settings(cls, settings: Settings) -> LocalRegistryConfig:
        """Read the settings. Where one address is set, it serves for both.

        Raises:
            SettingError: One of them is malformed.
        """
        namespace, port = image_namespace(settings), settings.positive_int(PORT, default=_DEFAULT_PORT)
        if port > _HIGHEST_PORT:
            raise SettingError(f"METAFLOW_{PORT}", reason=f"{port} is not a port", remedy="write 1 to 65535")
        push, pull = (_repository(settings, name, namespace) for name in (PUSH, PULL))
        return cls(
            push=push or pull,
            pull=pull or push,
            namespace=namespace,
            image=settings.get(IMAGE, _DEFAULT_IMAGE) or _DEFAULT_IMAGE,
            port=port,
        )


def _repository(settings: Settings, name: str, namespace: str) -> str | None:
    """Return the repository below the address that a setting has; None if it has none."""
    address = settings.get(name)
    if address is None:
        return None
    repository = f"{address.rstrip('/')}/{namespace}"
    try:
        is_whole = parse_repository(repository) == repository
    except InvalidValueError as error:
        raise SettingError(
            f"METAFLOW_{name}",
            reason=f"{address!r} is no address of a registry: {error.reason}",
            remedy="write host:port, for example 192.168.1.20:5000, and a path after it where one is wanted",
        ) from error
    if not is_whole:  # a host without a dot and a port is a path on Docker Hub, to all who read references
        reason = f"{address!r} does not begin with what could be told from a path"
        raise SettingError(f"METAFLOW_{name}", reason=reason, remedy="write the port of the host, too: registry:5000")
    return repository
