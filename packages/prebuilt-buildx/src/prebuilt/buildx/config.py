"""Settings of the builder ``buildx``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.build_cache import cache_setting

TIMEOUT_SETTING = "METAFLOW_PREBUILT_BUILDX_TIMEOUT"
BUILDER_SETTING = "METAFLOW_PREBUILT_BUILDX_BUILDER"

_TIMEOUT_S = 7200  # far longer than any environment takes: it is there for builders that hang
_OPTIONS_SETTING = "PREBUILT_BUILDX_OPTIONS"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildxConfig:
    """How builds are run.

    Attributes:
        builder: Name of a builder of ``docker buildx ls`` (``METAFLOW_PREBUILT_BUILDX_BUILDER``); None for the current one.
        cache: Where builders share what they have made (``METAFLOW_PREBUILT_BUILDX_CACHE``): `BESIDE_IMAGES`, ``host/repository``
            with or without a tag, or None for no such cache.
        provenance: Whether images have a provenance attestation (``METAFLOW_PREBUILT_BUILDX_PROVENANCE``).
        sbom: Whether they have a bill of materials (``METAFLOW_PREBUILT_BUILDX_SBOM``).
        options: More options for ``docker buildx build`` (``METAFLOW_PREBUILT_BUILDX_OPTIONS``).
        timeout_s: The longest that one build may take (``METAFLOW_PREBUILT_BUILDX_TIMEOUT``).
    """

    builder: str | None = None
    cache: str | None = None
    provenance: bool = False
    sbom: bool = False
    options: tuple[str, ...] = ()
    timeout_s: int = _TIMEOUT_S

    @classmethod
    def from_settings(cls, settings: Settings) -> BuildxConfig:
        """Read the settings."""
        return cls(
            builder=settings.get("PREBUILT_BUILDX_BUILDER"),
            cache=cache_setting(settings, "PREBUILT_BUILDX_CACHE"),
            provenance=settings.flag("PREBUILT_BUILDX_PROVENANCE", default=False),
            sbom=settings.flag("PREBUILT_BUILDX_SBOM", default=False),
            options=_options(settings),
            timeout_s=settings.positive_int("PREBUILT_BUILDX_TIMEOUT", default=_TIMEOUT_S),
        )


def _options(settings: Settings) -> tuple[str, ...]:
    value = settings.get(_OPTIONS_SETTING) or ""
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise SettingError(
            f"METAFLOW_{_OPTIONS_SETTING}", reason=str(error), remedy="quote it as for a shell"
        ) from error
