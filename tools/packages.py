"""The packages of this repository, found by looking: no list of them is kept by hand."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One installable package.

    Attributes:
        folder: Where it is.
        project: The ``[project]`` table of its pyproject.toml.
        test_needs: Its dependency group ``test``: what its tests need beyond prebuilt-testing.
        version: The one that main carries: the next to be released.
    """

    folder: Path
    project: dict[str, Any]
    test_needs: tuple[str, ...]
    version: str

    @classmethod
    def read(cls, folder: Path) -> Package:
        """Return the package in `folder`."""
        data = read_toml(folder / "pyproject.toml")
        version_file = folder / data["tool"]["hatch"]["version"]["path"]
        version = _VERSION.search(version_file.read_text(encoding="utf-8"))
        if version is None:
            raise ValueError(f"{version_file} has no line __version__ = …")
        return cls(
            folder=folder,
            project=data["project"],
            test_needs=tuple(data.get("dependency-groups", {}).get("test", ())),
            version=version.group(1),
        )

    @property
    def name(self) -> str:
        """The distribution's name: ``prebuilt-core``."""
        return str(self.project["name"])

    @property
    def short(self) -> str:
        """What sessions call it: ``core`` for prebuilt-core, ``metaflow`` for metaflow-prebuilt."""
        return self.name.removeprefix("prebuilt-").removesuffix("-prebuilt")

    @property
    def module(self) -> str:
        """What it is imported as: ``prebuilt.core``. Above it are namespaces only."""
        (namespace,) = (path for path in (self.folder / "src").iterdir() if path.is_dir())
        (leaf,) = (path for path in namespace.iterdir() if path.is_dir() and path.name != "__pycache__")
        return f"{namespace.name}.{leaf.name}"

    @property
    def dependencies(self) -> tuple[str, ...]:
        """What it needs, as it says so, without extras."""
        return tuple(self.project.get("dependencies", ()))

    @property
    def dependency_names(self) -> frozenset[str]:
        """The distributions that it may import: those that it needs, and those of its extras."""
        extras = self.project.get("optional-dependencies", {})
        return frozenset(map(name_of, [*self.dependencies, *(need for needs in extras.values() for need in needs)]))


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file says."""
    return tomllib.loads(file.read_text(encoding="utf-8"))


def name_of(requirement: str) -> str:
    """Return the normalised distribution name in a requirement: ``prebuilt-core`` of ``prebuilt-core>=1.0,<2``."""
    match = _NAME.match(requirement)
    if match is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def all_packages(root: Path = ROOT) -> dict[str, Package]:
    """Return every package by its short name, each after those that it needs."""
    found = [Package.read(file.parent) for file in sorted((root / "packages").glob("*/pyproject.toml"))]
    return {package.short: package for package in closure(found, found)}


def closure(wanted: Iterable[Package], known: Iterable[Package]) -> list[Package]:
    """Return `wanted` and whatever of `known` they need, each after those that it needs."""
    by_name = {package.name: package for package in known}
    ordered: dict[str, Package] = {}

    def add(package: Package) -> None:
        for name in map(name_of, package.dependencies):
            if name in by_name and name not in ordered:
                add(by_name[name])
        ordered.setdefault(package.name, package)

    for package in wanted:
        add(package)
    return list(ordered.values())


def main(names: list[str]) -> None:
    """Print the options with which pip and uv install `names` and what they need, from their folders."""
    packages = all_packages()
    for package in closure([packages[name] for name in names], packages.values()):
        print(f"--editable={package.folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
