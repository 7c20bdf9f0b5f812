"""pip's own configuration: its files and environment variables, read as pip reads them."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prebuilt.core.errors import SettingError

_SECTIONS = ("global", "install")  # a later one wins, as for `pip install`
_SYSTEM_FILE = Path("/etc/pip.conf")
_TRUE, _FALSE = {"y", "yes", "t", "true", "on", "1"}, {"n", "no", "f", "false", "off", "0"}


def config_files(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Yield the configuration files that pip would read, lowest priority first; they may not exist.

    Source: pip/_internal/configuration.py (``iter_config_files``) and pip/_internal/utils/appdirs.py
    """
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    if named:
        yield Path(named)
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
        in_library = home / "Library" / "Application Support" / "pip"
        user = in_library if in_library.is_dir() else home / ".config" / "pip"
    else:
        for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
            yield Path(folder) / "pip" / "pip.conf"
        yield _SYSTEM_FILE
        user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"
    if not (named and Path(named).exists()):  # pip skips the user's files then
        yield home / ".pip" / "pip.conf"
        yield user / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipConfig:
    """What pip's configuration says, by option name (``index-url``)."""

    values: Mapping[str, str] = field(repr=False)  # URLs in it may hold passwords

    @classmethod
    def load(cls, environ: Mapping[str, str], home: Path) -> PipConfig:
        """Read files, then ``PIP_*`` variables, which win.

        Raises:
            SettingError: A file is not in pip's format.
        """
        values: dict[str, str] = {}
        for path in config_files(environ, home):
            values.update(_read(path))
        for name, value in environ.items():
            if name.startswith("PIP_") and value:
                values[name.removeprefix("PIP_").lower().replace("_", "-")] = value
        return cls(values=values)

    def get(self, option: str) -> str | None:
        """Return a value; an empty one counts as not set."""
        return self.values.get(option, "").strip() or None

    def words(self, option: str) -> tuple[str, ...]:
        """Return a list option: its words."""
        return tuple(self.values.get(option, "").split())

    def flag(self, option: str) -> bool:
        """Return a switch; off where it is not set."""
        value = (self.get(option) or "no").lower()
        if value not in _TRUE | _FALSE:
            raise SettingError(
                f"{option} of pip", reason=f"{value!r} is neither on nor off", remedy="see `pip config list`"
            )
        return value in _TRUE


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise SettingError("pip's configuration", at=str(path), reason=str(error), remedy="mend the file") from error
    values: dict[str, str] = {}
    for section in _SECTIONS:
        if parser.has_section(section):
            values.update({option.replace("_", "-"): value for option, value in parser.items(section)})
    return values
