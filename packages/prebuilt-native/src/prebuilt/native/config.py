"""Settings of the native builder and of the layout registry."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeConfig:
    """How much is done at once.

    Attributes:
        layer_workers: Layers made at a time, of all images together (``METAFLOW_PREBUILT_LAYER_WORKERS``): one for each processor, each
            with a thread beside it that compresses. At most 4, since each holds some 50 MB.
        compile_workers: Processes that compile bytecode: one for each processor, at most 8.
    """

    layer_workers: int
    compile_workers: int

    @classmethod
    def from_settings(cls, settings: Settings) -> NativeConfig:
        """Read the settings."""
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(
            layer_workers=settings.positive_int("PREBUILT_LAYER_WORKERS", default=min(processors, 4)),
            compile_workers=min(processors, 8),
        )


def layout_folder(settings: Settings) -> Path:
    """Return the folder of the image layout: ``METAFLOW_PREBUILT_LAYOUT``, by default ``layout`` in the cache folder."""
    configured = settings.get("PREBUILT_LAYOUT")
    return Path(configured).expanduser().absolute() if configured else cache_dir(settings) / "layout"
