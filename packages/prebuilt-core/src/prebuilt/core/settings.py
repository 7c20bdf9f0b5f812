"""Settings: the environment first, then the project's Metaflow configuration, then the profile."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prebuilt.core.errors import SettingError
from prebuilt.core.home import home_folder

OFF = frozenset({"", "0", "false", "no", "off"})
ON = frozenset({"1", "true", "yes", "on"})
"""Words of switches, in lower case."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Values by their name without ``METAFLOW_``: ``get("PREBUILT_BASE_IMAGE")``.

    `environ` holds names with ``METAFLOW_``; `profile` holds the JSON of Metaflow's configuration, in which both forms occur.
    """

    environ: Mapping[str, str]
    profile: Mapping[str, Any]

    @classmethod
    def load(cls) -> Settings:
        """Read the process environment and the configuration that Metaflow would read: the project's is stronger than the profile.

        Source: metaflow/metaflow_config_funcs.py (METAFLOW_HOME, METAFLOW_PROFILE, init_local_config)
        """
        named = os.environ.get("METAFLOW_HOME")
        home = Path(named).expanduser() if named else home_folder(os.environ) / ".metaflowconfig"
        profile = os.environ.get("METAFLOW_PROFILE")
        data = _read(home / (f"config_{profile}.json" if profile else "config.json"), "METAFLOW_PROFILE")
        project = _project_folder()
        if project is not None:
            own = _read(project / "config.json", "the project's configuration")
            data |= {f"METAFLOW_{name.removeprefix('METAFLOW_')}": value for name, value in own.items()}
        return cls(dict(os.environ), data)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value; an empty one counts as not set."""
        full = f"METAFLOW_{name}"
        for value in (self.environ.get(full), self.profile.get(full), self.profile.get(name)):
            if value not in (None, ""):
                return str(value)
        return default

    def require(self, name: str, *, why: str) -> str:
        """Return the value.

        Raises:
            SettingError: It is not set; `why` says what needs it.
        """
        value = self.get(name)
        if value is None:
            full = f"METAFLOW_{name}"
            raise SettingError(
                full, reason=f"it is not set, and {why}", remedy=f"set {full} or put it into your Metaflow profile"
            )
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a switch: 1/true/yes/on or 0/false/no/off. An environment variable that is set but empty is off."""
        if self.environ.get(f"METAFLOW_{name}") == "":
            return False
        value = self.get(name)
        if value is None:
            return default
        if value.lower() not in ON | OFF:
            raise SettingError(f"METAFLOW_{name}", reason=f"{value!r} is neither on nor off", remedy="set it to 1 or 0")
        return value.lower() in ON

    def positive_int(self, name: str, *, default: int) -> int:
        """Return a whole number above 0."""
        value = self.get(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or int(value) == 0:
            raise SettingError(f"METAFLOW_{name}", reason=f"{value!r} is not a whole number above 0")
        return int(value)

    def choice(self, name: str, choices: tuple[str, ...], *, default: str) -> str:
        """Return one of `choices`."""
        value = self.get(name, default) or default
        if value not in choices:
            raise SettingError(f"METAFLOW_{name}", reason=f"{value!r} is not one of {', '.join(choices)}")
        return value


def _project_folder() -> Path | None:
    """Return the folder ``.metaflow`` of the project that this process runs in; None if it runs in none."""
    here = Path.cwd()
    places = (folder / ".metaflow" for folder in (here, *here.parents))
    return next((place for place in places if place.is_dir()), None)


def _read(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in the file; an empty one if there is no file."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise SettingError(name, at=str(path), reason=str(error), remedy="mend the file") from error
    return data
