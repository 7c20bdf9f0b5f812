"""Where builders keep layers for each other in a registry: a setting that each of them has."""

from __future__ import annotations

from typing import Literal

from prebuilt.core.errors import InvalidValueError, SettingError
from prebuilt.core.settings import OFF, ON, Settings
from prebuilt.oci.reference import has_host, is_layout, parse_reference

BESIDE_IMAGES: Literal["on"] = "on"
"""The cache is in the repository of the images."""


def cache_setting(settings: Settings, name: str, *, default: str | None = None, takes_tag: bool = True) -> str | None:
    """Return `BESIDE_IMAGES`, ``host/repository`` with or without a tag, or None for no cache.

    Args:
        settings: Where it is looked up.
        name: Of the setting, without ``METAFLOW_``.
        default: What it is where it is not set.
        takes_tag: Whether there may be a tag.

    Raises:
        SettingError: It is none of these.
    """
    value = settings.get(name)
    if not value:
        return default
    if value.lower() in ON:
        return BESIDE_IMAGES
    if value.lower() in OFF:
        return None
    if not _is_place(value, takes_tag=takes_tag):
        form = "host/repository[:tag]" if takes_tag else "host/repository"
        reason = f"{value!r} is neither on nor off, nor a place in a registry"
        raise SettingError(f"METAFLOW_{name}", reason=reason, remedy=f"set it to on, off or {form}")
    return value


def _is_place(value: str, *, takes_tag: bool) -> bool:
    # A name alone is a repository of Docker Hub to Docker; here it is more likely a switch that is misspelt.
    if not has_host(value) or is_layout(value):
        return False
    try:
        reference = parse_reference(value)
    except InvalidValueError:
        return False
    return reference.digest is None and (takes_tag or ":" not in value.partition("/")[2])
