"""What conda's own configuration files say of channels."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prebuilt.core.errors import SettingError
from prebuilt.core.home import home_folder

_DEFAULTS = "defaults"
# Source: https://docs.conda.io/projects/conda/en/stable/user-guide/configuration/settings.html#default-channels-default-channels
_DEFAULT_CHANNELS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
_NAMES = (".condarc", "condarc", "condarc.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condarc:
    """The configuration as a whole.

    Attributes:
        channels: Names and URLs as they are written, highest priority first.
        alias: What names of channels are below; None: the usual.
        multichannels: Names that stand for several channels, ``defaults`` among them.
        bases: What single channels are below, by their name.
    """

    channels: tuple[str, ...] = ()
    alias: str | None = None
    multichannels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Condarc:
        """Read every file that conda would; of lists, those of stronger files come first.

        Raises:
            SettingError: A file cannot be read, or is malformed.
        """
        files = [(path, data) for path in _files(environ) if (data := _read(path, environ))]
        lists = {
            name: _merged(_strings(data.get(name), name, path) for path, data in reversed(files))
            for name in ("channels", "default_channels")
        }
        multichannels: dict[str, tuple[str, ...]] = {_DEFAULTS: lists["default_channels"] or _DEFAULT_CHANNELS}
        bases: dict[str, str] = {}
        alias: str | None = None
        for path, data in files:
            if data.get("channel_alias") is not None:
                (alias,) = _strings([data["channel_alias"]], "channel_alias", path)
            for name, base in _mapping(data.get("custom_channels"), "custom_channels", path).items():
                (bases[name],) = _strings([base], f"custom_channels: {name}", path)
            for name, members in _mapping(data.get("custom_multichannels"), "custom_multichannels", path).items():
                multichannels[name] = _strings(members, f"custom_multichannels: {name}", path)
        return cls(channels=lists["channels"], alias=alias, multichannels=multichannels, bases=bases)

    def expanded(self, channels: Sequence[str]) -> tuple[str, ...]:
        """Return `channels` with what stands for several in place, and with the full URL of those that are not below the alias."""
        found: list[str] = []
        for channel in channels:
            for each in self.multichannels.get(channel, (channel,)):
                base = self.bases.get(each.partition("/")[0])
                found.append(f"{base.rstrip('/')}/{each}" if base else each)
        return tuple(dict.fromkeys(channel for channel in found if channel != "nodefaults"))


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files that are there, the weakest first.

    Source: https://docs.conda.io/projects/conda/en/stable/user-guide/configuration/use-condarc.html#searching-for-condarc, and
    for ``.mambarc`` https://mamba.readthedocs.io/en/latest/user_guide/configuration.html
    """
    home = home_folder(environ)
    folders = [Path("/etc/conda"), Path("/var/lib/conda")]
    root = environ.get("CONDA_ROOT") or environ.get("MAMBA_ROOT_PREFIX")
    if root or environ.get("CONDA_EXE"):
        folders.append(Path(root) if root else Path(environ["CONDA_EXE"]).parent.parent)
    folders += [Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "conda", home / ".conda"]
    places = [folder / name for folder in folders for name in _NAMES]
    places += [home / ".condarc", home / ".mambarc"]
    if environ.get("CONDA_PREFIX"):
        places += [Path(environ["CONDA_PREFIX"]) / name for name in _NAMES]
    places += [Path(environ[name]).expanduser() for name in ("CONDARC", "MAMBARC") if environ.get(name)]
    for place in dict.fromkeys(places):
        if place.is_dir():
            yield from sorted(path for path in place.iterdir() if path.suffix in {".yml", ".yaml"})
        elif place.is_file():
            yield place


def _read(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    import yaml  # whoever has no such file is spared it

    try:
        text = string.Template(path.read_text(encoding="utf-8")).safe_substitute(environ)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingError("conda's configuration", at=str(path), reason=str(error), remedy="mend the file") from error
    return _mapping(data, "the file", path)


def _mapping(value: object, what: str, path: Path) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _malformed(what, "names with values", path)
    return {str(name): content for name, content in value.items()}


def _strings(value: object, what: str, path: Path) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _malformed(what, "made of names and URLs", path)
    return tuple(value)


def _malformed(what: str, expected: str, path: Path) -> SettingError:
    reason = f"{what} is not {expected}"
    return SettingError("conda's configuration", at=str(path), reason=reason, remedy="mend the file")


def _merged(lists: Iterator[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for strings in lists for each in strings))
