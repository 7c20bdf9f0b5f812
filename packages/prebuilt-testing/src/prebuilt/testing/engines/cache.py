"""What takes long to get and is kept from one test run to the next: engines that were built or unpacked, by their versions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.oci.containers.lock_file import locked

_USERS = cache_dir(Settings.load()) / "engines"
"""As this process began: a test may have another cache by the time when it wants an engine, and all processes hold the same locks."""


def engine_cache() -> Path:
    """Return the folder that keeps engines: ``PREBUILT_ENGINE_CACHE``, else one in the user's cache. It may not exist yet."""
    configured = os.environ.get("PREBUILT_ENGINE_CACHE")
    return Path(configured) if configured else _USERS


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache. The first who asks has `make` fill it, the others wait; it is never half full.

    Args:
        name: What is in it, with its version.
        make: Fills the empty folder that it is given.
    """
    folder = engine_cache() / name
    with locked(folder.with_name(f".{name}.lock")):
        if not folder.exists():
            unfinished = folder.with_name(f".{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # of somebody who was killed
            unfinished.mkdir()
            make(unfinished)
            unfinished.touch()  # the time when it was made, whatever was unpacked into it
            unfinished.rename(folder)
    return folder
