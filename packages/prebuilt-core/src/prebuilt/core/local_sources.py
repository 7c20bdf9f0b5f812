"""Packages that requirements name by a path on this machine, and what is there: the path alone says nothing of the bytes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prebuilt.core.errors import EngineError
from prebuilt.core.storage import storage_errors
from prebuilt.core.tool_process import ask_tool

_CHUNK_BYTES = 1 << 20
_REMOTE = {"http", "https", "ssh"}
_MADE = re.compile(
    r"__pycache__|\.git|\.hg|\.svn|\.venv|venv|\.tox|\.nox|\.[a-z]+_cache|node_modules|.*\.(egg-info|pyc)"
)
_MADE_AT_THE_TOP = {"build", "dist"}  # deeper down they are packages of those names


def local_path(spec: str, folder: Path) -> Path | None:
    """Return the path that ``@ PATH`` or ``@ file:URL`` names, absolute; None for any other spec.

    Args:
        spec: Of a PyPI requirement.
        folder: What relative paths are relative to.
    """
    spec = spec.strip()
    if not spec.startswith("@"):
        return None
    place = spec[1:].strip()
    scheme = urlsplit(place).scheme
    if scheme in _REMOTE or "+" in scheme:
        return None
    path = unquote(urlsplit(place).path) if scheme == "file" else place
    return (folder / Path(path).expanduser()).resolve()


def local_digests(packages: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the SHA-256 of what each local package of `packages` holds now, by its name there; what is absent has none.

    Raises:
        StorageError: One cannot be read.
    """
    paths = {name: local_path(spec, folder) for name, spec in packages.items()}
    return {name: digest for name, path in paths.items() if path is not None and (digest := _digest(path)) is not None}


def _digest(path: Path) -> str | None:
    if path.is_dir():
        return _tree_digest(path)
    return _file_digest(path) if path.is_file() else None


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with storage_errors(f"read {path.name}", path.parent), path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _tree_digest(folder: Path) -> str:
    """Return a digest of names, links and contents, whatever their times, owners and order in the folder."""
    digest = hashlib.sha256()
    for name in sorted(_of_git(folder) or _all_but_made(folder)):
        path = folder / name
        if path.is_symlink():
            what, content = "link", hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
        elif path.is_file():
            what, content = "file", _file_digest(path)
        else:  # a submodule, or a file that was removed and is still in git's index
            continue
        digest.update(b"\0".join((what.encode(), os.fsencode(name), content.encode(), b"")))
    return digest.hexdigest()


def _of_git(folder: Path) -> list[str]:
    """Return the files that git does not ignore; none where git does not answer, or does not know the folder."""
    git = shutil.which("git")
    if git is None:
        return []
    command = [git, "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    try:
        answer = ask_tool(command)
    except EngineError:
        return []
    return [] if answer.status else [name for name in answer.stdout.split("\0") if name]


def _all_but_made(folder: Path) -> Iterable[str]:
    """Yield the files that are no trace of work done in the folder."""

    def fail(error: OSError) -> None:
        raise error

    with storage_errors("read a folder", folder):
        for place, folders, files in os.walk(folder, onerror=fail):
            at_the_top = Path(place) == folder
            kept = [name for name in folders if not _is_made(name, at_the_top=at_the_top)]
            links = [name for name in kept if Path(place, name).is_symlink()]
            folders[:] = kept
            for name in (*files, *links):
                if not _MADE.fullmatch(name):
                    yield Path(place, name).relative_to(folder).as_posix()


def _is_made(name: str, *, at_the_top: bool) -> bool:
    return bool(_MADE.fullmatch(name)) or (at_the_top and name in _MADE_AT_THE_TOP)
