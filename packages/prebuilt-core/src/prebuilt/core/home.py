"""Where the user's home folder is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prebuilt.core.errors import SettingError


def home_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's home folder: ``HOME``, else what the system knows of this user.

    Raises:
        SettingError: Neither says: a container's user by number, without ``HOME``.
    """
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path.home()
    except RuntimeError as error:
        reason = f"it is not set, and the system knows no user with the number {os.getuid()}"
        raise SettingError("HOME", reason=reason, remedy="set it to a folder that this user may write to") from error
