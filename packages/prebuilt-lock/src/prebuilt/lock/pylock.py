"""A ``pylock.toml`` that uv has written: which files each package may be had as."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True, kw_only=True)
class DistFile:
    """A wheel or an sdist.

    Attributes:
        url: Where it is; ``file://`` for a local one.
        sha256: As the index states it; None where it does not.
        size_bytes: As the index states it; None where it does not.
        subdirectory: Folder in an archive of source that holds the project; None: its top.
        name: Of the file, where the URL does not end with it.
    """

    url: str
    sha256: str | None
    size_bytes: int | None
    subdirectory: str | None = None
    name: str | None = None

    @property
    def filename(self) -> str:
        """Name of the file."""
        return self.name or unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel."""
        return self.filename.endswith(".whl")

    @property
    def local_path(self) -> Path | None:
        """Where it is on this machine; None for one that is elsewhere."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A commit of a repository, and the folder in it that holds the project."""

    url: str
    commit: str
    subdirectory: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PylockPackage:
    """One package of the lock file: its wheels, else its source.

    Attributes:
        version: None where the source has to be built to know.
        marker: Environment marker that must hold; None: always there.
        source: What to build where no wheel fits: an sdist, a commit, or a folder.
    """

    name: str
    version: str | None
    marker: str | None
    wheels: tuple[DistFile, ...]
    source: DistFile | GitSource | Path | None


def parse_pylock(text: str, folder: Path) -> tuple[PylockPackage, ...]:
    """Return the packages of a ``pylock.toml``; relative paths in it are relative to `folder`.

    Source: https://packaging.python.org/en/latest/specifications/pylock-toml/
    """
    return tuple(_package(package, folder) for package in tomllib.loads(text).get("packages", ()))


def _package(data: Mapping[str, Any], folder: Path) -> PylockPackage:
    archive = _file(data["archive"], folder) if "archive" in data else None
    wheels = [_file(wheel, folder) for wheel in data.get("wheels", ())]
    wheels += [archive] if archive and archive.is_wheel else []
    return PylockPackage(
        name=canonicalize_name(data["name"]),
        version=data.get("version"),
        marker=data.get("marker"),
        wheels=tuple(wheels),
        source=_source(data, archive, folder),
    )


def _source(data: Mapping[str, Any], archive: DistFile | None, folder: Path) -> DistFile | GitSource | Path | None:
    if "sdist" in data:
        return _file(data["sdist"], folder)
    if "vcs" in data:
        vcs = data["vcs"]
        return GitSource(
            url=vcs.get("url") or vcs["path"], commit=vcs["commit-id"], subdirectory=vcs.get("subdirectory")
        )
    if "directory" in data:
        directory = data["directory"]
        return folder.joinpath(directory["path"], directory.get("subdirectory", ""))
    return archive if archive and not archive.is_wheel else None


def _file(data: Mapping[str, Any], folder: Path) -> DistFile:
    url = data["url"] if "url" in data else (folder / data["path"]).resolve().as_uri()
    return DistFile(
        url=url,
        sha256=data.get("hashes", {}).get("sha256"),
        size_bytes=data.get("size"),
        subdirectory=data.get("subdirectory"),
        name=data.get("name"),
    )
