"""Which image a step's image is built on."""

from __future__ import annotations

import re
from typing import Any

from metaflow import metaflow_config

from metaflow_extensions.prebuilt.deploy.requirements import host_python, wants_gpu
from prebuilt.core.settings import Settings

_STOCK = re.compile(r"(?P<registry>.*/)?python:\d+\.\d+")


def base_image(compute: Any, python: str | None, settings: Settings) -> str:
    """Return the base image, first that is set: by our setting, on the step, in Metaflow's configuration; else ``python:X.Y-slim``.

    GPU steps have a setting of their own and fall back to the one for all.
    """
    setting = _setting(compute, settings)
    forced = settings.get(setting) if setting else None
    if forced:
        return forced
    image: str = compute.attributes["image"]  # filled in by the decorator's init() where the user gave none
    stock = _STOCK.fullmatch(image)
    if stock is None or _has_own(compute) or _configured(compute.name):
        return image
    xy = ".".join((python or host_python()).split(".")[:2])
    return f"{stock['registry'] or ''}python:{xy}-slim"


def displacing_setting(compute: Any, settings: Settings) -> str | None:
    """Return the setting that takes the place of the image that the step itself names; None if it names none, or the same."""
    setting = _setting(compute, settings)
    if setting is None or not _has_own(compute) or compute.attributes["image"] == settings.get(setting):
        return None
    return setting


def _setting(compute: Any, settings: Settings) -> str | None:
    """Return the setting of ours that decides, if one is set."""
    names = ("PREBUILT_GPU_BASE_IMAGE", "PREBUILT_BASE_IMAGE") if wants_gpu(compute) else ("PREBUILT_BASE_IMAGE",)
    return next((name for name in names if settings.get(name)), None)


def _has_own(compute: Any) -> bool:
    return "image" in compute._user_defined_attributes  # noqa: SLF001


def _configured(name: str) -> str | None:
    """Return the image that Metaflow is configured to use for the compute decorator `name`."""
    image: str | None = getattr(
        metaflow_config, f"{name.upper()}_CONTAINER_IMAGE", metaflow_config.DEFAULT_CONTAINER_IMAGE
    )
    return image
