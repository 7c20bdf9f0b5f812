"""What source says of itself before anything in it is executed."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from prebuilt.core.errors import ResolveError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_COMPILERS = {
    "cffi",
    "cmake",
    "cython",
    "maturin",
    "meson-python",
    "nanobind",
    "numpy",
    "oldest-supported-numpy",
    "pybind11",
    "scikit-build",
    "scikit-build-core",
    "setuptools-rust",
}
_EXTENSIONS = re.compile(r"\b(ext_modules|cffi_modules|rust_extensions|cythonize)\s*[=(]")
_MAX_FILE = 1 << 20  # a build file that is longer is no build file


def needs_compiler(source: Path) -> str | None:
    """Return why a folder, or an sdist, will need a compiler: ``it is built with cython``; None where nothing says so.

    It costs milliseconds, where finding out by building may cost many minutes.

    Raises:
        ResolveError: It cannot be read.
    """
    try:
        read = _reader(source)
        project, setup = read("pyproject.toml"), read("setup.py")
        build = tomllib.loads(project).get("build-system", {}) if project else {}
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ResolveError("read source", at=str(source), reason=str(error)) from error
    tools = sorted(_required(build) & _COMPILERS)
    if tools:
        return f"it is built with {', '.join(tools)}"
    made = _EXTENSIONS.search(setup or "")
    return f"its setup.py makes extension modules ({made[1]})" if made else None


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack an archive of source into `folder`, which is made; return the project's top: the only folder in there, if it is alone.

    Raises:
        ResolveError: It cannot be read.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)  # noqa: S202 - what zipfile takes out stays in the folder
        else:
            with tarfile.open(archive) as tar:
                # Python before 3.10.12 and 3.11.4 has no filters.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(folder)  # noqa: S202 - the filter is set above
        inside = list(folder.iterdir())
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ResolveError("read source", at=str(archive), reason=str(error)) from error
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _required(build: Mapping[str, Any]) -> set[str]:
    names = set()
    for line in build.get("requires", ()):
        try:
            names.add(str(canonicalize_name(Requirement(line).name)))
        except InvalidRequirement:  # the build itself will say what is wrong with it
            continue
    return names


def _reader(source: Path) -> Callable[[str], str | None]:
    """Return what reads a file at the top of the project, or gives None."""
    if source.is_dir():
        return lambda name: _text((source / name).read_bytes()) if (source / name).is_file() else None
    files = _from_zip(source) if zipfile.is_zipfile(source) else _from_tar(source)
    return files.get


def _from_tar(source: Path) -> dict[str, str]:
    with tarfile.open(source) as tar:
        members = {entry.name.partition("/")[2]: entry for entry in tar if entry.isfile() and entry.size <= _MAX_FILE}
        wanted = {name: members[name] for name in ("pyproject.toml", "setup.py") if name in members}
        return {name: _text(file.read()) for name, entry in wanted.items() if (file := tar.extractfile(entry))}


def _from_zip(source: Path) -> dict[str, str]:
    with zipfile.ZipFile(source) as archive:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist() if info.file_size <= _MAX_FILE}
        return {name: _text(archive.read(members[name])) for name in ("pyproject.toml", "setup.py") if name in members}


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
