"""Real conda packages, made by rattler-build from files in memory or on disk."""

from __future__ import annotations

import random
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prebuilt.core.platforms import Platform
from prebuilt.core.tree import BytesContent, DirectoryEntry, Entry, FileEntry, HardlinkEntry, SymlinkEntry

PREFIX_MARK = "@PREFIX@"
"""Stands for the prefix in the bytes of a package's files; what an installer puts there is the prefix that it installs into."""

_SITE_PACKAGES = (
    "site-packages/"  # conda's word for the place in a noarch package; rattler-build makes it of any Python's
)
_NOARCH_PYTHON = "lib/python3.11/"

# Runs in the build: copies the files to the prefix of the build and puts that prefix, which is long, in place of the mark.
_INSTALL = f"""
import os, pathlib, shutil, sys
prefix = os.environ["PREFIX"]
shutil.copytree(sys.argv[1], prefix, symlinks=True, dirs_exist_ok=True)
for name in sys.argv[2:]:
    path = pathlib.Path(prefix, name)
    path.write_bytes(path.read_bytes().replace(b"{PREFIX_MARK}", prefix.encode()))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaPackageSpec:
    """A conda package to be made.

    Attributes:
        build: The build string; the number is in front of it where a solver must prefer one: ``1_cpython``.
        subdir: The platform; ignored for `noarch` packages.
        files: Paths below the prefix. Those of noarch Python packages begin with ``site-packages/``, or are not Python's. The
            text :data:`PREFIX_MARK` in a :class:`~prebuilt.core.tree.BytesContent` becomes the prefix; other contents are
            taken as they are. A file with a NUL is one that has its prefix in binary.
        entry_points: Console scripts of a noarch Python package: ``hello = hello:main``.
        post_link: A shell script that conda would run after linking.
    """

    name: str
    version: str
    build: str = "0"
    build_number: int = 0
    subdir: str = "linux-64"
    files: tuple[Entry, ...] = ()
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: Literal["python", "generic"] | None = None
    entry_points: tuple[str, ...] = ()
    post_link: str = ""

    @property
    def filename(self) -> str:
        """Name of the package file."""
        return f"{self.name}-{self.version}-{self.build}.conda"

    def all_files(self) -> tuple[Entry, ...]:
        """Return the files with the post-link script among them."""
        if not self.post_link:
            return self.files
        script = BytesContent(f"#!/bin/sh\n{self.post_link}\n".encode())
        return (*self.files, FileEntry(path=f"bin/.{self.name}-post-link.sh", content=script, executable=True))


def text_file(path: str, text: str, *, executable: bool = False) -> FileEntry:
    """Return a file of a package that holds `text`."""
    return FileEntry(path=path, content=BytesContent(text.encode()), executable=executable)


def binary_file(path: str, size_bytes: int = 4096, *, with_prefix: bool = False, executable: bool = False) -> FileEntry:
    """Return a file of a package that does not compress, always the same bytes for the same path."""
    prefix = f"\0{PREFIX_MARK}/share\0".encode() if with_prefix else b"\0"
    noise = random.Random(path).randbytes(size_bytes)  # noqa: S311 - what is wanted is that it does not compress
    return FileEntry(path=path, content=BytesContent(noise + prefix), executable=executable)


def build_package(spec: CondaPackageSpec, channel: Path) -> Path:
    """Make the package of `spec` in its subdir of `channel`; return its file. The channel is not indexed.

    It takes some 50 ms and what it takes to compress the files. Two packages can be made at once.
    """
    with tempfile.TemporaryDirectory(prefix="prebuilt-conda-") as scratch:
        built = _run_build(spec, Path(scratch))
        place = channel / built.parent.name / built.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(built, place)
    return place


def _run_build(spec: CondaPackageSpec, scratch: Path) -> Path:
    from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe, ToolConfiguration, VariantConfig

    (scratch / "recipe").mkdir()
    marked = _stage(spec, scratch / "files")
    (scratch / "install.py").write_text(_INSTALL, encoding="utf-8")
    recipe = Stage0Recipe.from_dict(_recipe(spec, scratch, marked), recipe_dir=scratch / "recipe")
    platforms = PlatformConfig(target_platform=spec.subdir, build_platform=Platform.host().subdir)
    [variant] = recipe.render(VariantConfig(), RenderConfig(platform=platforms))
    result = variant.run_build(
        ToolConfiguration(
            allow_symlinks_on_windows=True
        ),  # that is about noarch packages, which Windows could want too
        output_dir=scratch / "output",
        channels=[],
        package_format="conda:1",
        no_include_recipe=True,
    )
    return Path(result.packages[0])


def _recipe(spec: CondaPackageSpec, scratch: Path, marked: list[str]) -> dict[str, Any]:
    install = [sys.executable, "-I", str(scratch / "install.py"), str(scratch / "files"), *marked]
    # Bytecode is for installers to make; with any Python in the package, rattler-build would take a minute to make it.
    python: dict[str, Any] = {"skip_pyc_compilation": ["**/*.py"]}
    if spec.entry_points:
        python["entry_points"] = list(spec.entry_points)
    build: dict[str, Any] = {
        "number": spec.build_number,
        "string": spec.build,
        "python": python,
        "script": [shlex.join(install)],
        "dynamic_linking": {"binary_relocation": False},  # files are packed as they are given
    }
    if spec.noarch:
        build["noarch"] = spec.noarch
    return {
        "package": {"name": spec.name, "version": spec.version},
        "build": build,
        "requirements": {"run": list(spec.depends), "run_constraints": list(spec.constrains)},
    }


def _stage(spec: CondaPackageSpec, folder: Path) -> list[str]:
    """Write the files below `folder`; return the paths of those that hold the mark."""
    folder.mkdir()
    marked = []
    for entry in spec.all_files():
        path = f"{_NOARCH_PYTHON}{entry.path}" if entry.path.startswith(_SITE_PACKAGES) else entry.path
        _write(entry, folder / path, folder)
        if isinstance(entry, FileEntry) and isinstance(entry.content, BytesContent):
            marked += [path] if PREFIX_MARK.encode() in entry.content.data else []
    return marked


def _write(entry: Entry, path: Path, root: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(entry, DirectoryEntry):
        path.mkdir()
    elif isinstance(entry, SymlinkEntry):
        path.symlink_to(entry.target)
    elif isinstance(entry, HardlinkEntry):
        path.hardlink_to(root / entry.target)
    else:
        with entry.content.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        path.chmod(0o755 if entry.executable else 0o644)
