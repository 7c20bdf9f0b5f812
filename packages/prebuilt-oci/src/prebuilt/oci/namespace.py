"""The name that our repository has below an account, a project or a host."""

from __future__ import annotations

from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.reference import parse_repository

DEFAULT_NAMESPACE = "metaflow-prebuilt"


def image_namespace(settings: Settings) -> str:
    """Return ``METAFLOW_PREBUILT_IMAGE_NAMESPACE``: one name, or several with slashes between them.

    Raises:
        SettingError: Registries accept no such name.
    """
    namespace = settings.get("PREBUILT_IMAGE_NAMESPACE", DEFAULT_NAMESPACE) or DEFAULT_NAMESPACE
    try:
        parse_repository(f"registry.invalid/{namespace}")
    except InvalidValueError as error:
        raise SettingError(
            "METAFLOW_PREBUILT_IMAGE_NAMESPACE",
            reason=f"{namespace!r} cannot name a repository: {error.reason}",
            remedy=f"write it like {DEFAULT_NAMESPACE}, without a host and without a tag",
        ) from error
    return namespace
