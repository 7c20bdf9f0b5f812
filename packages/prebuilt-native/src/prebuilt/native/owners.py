"""Who owns which file: two packages may bring the same one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prebuilt.core.lock import LockedPackage

Files = Mapping[str, frozenset[str]]
"""Paths of files, by the labels of the packages that bring them."""


def owned(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths that count; bytecode goes with its source and is left out."""
    return frozenset(path for path in paths if not path.endswith(".pyc"))


def overlaps(order: Sequence[str], files: Files) -> list[str]:
    """Return one sentence for each pair of packages that own a file; `order` says who lies above whom.

    Packages that are not in `files` are taken to have none.
    """
    sentences: list[str] = []
    first: dict[str, str] = {}
    for package in order:
        shared: dict[str, list[str]] = {}
        for path in sorted(files.get(package, ())):
            if path in first and first[path] != package:
                shared.setdefault(first[path], []).append(path)
            first[path] = package
        for other, paths in shared.items():
            count = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            sentences.append(f"{other} and {package} both own {paths[0]}{count}; that of {package} is used")
    return sentences


def label(package: LockedPackage) -> str:
    """Return what a package is called in a sentence about its files: its file, since conda and PyPI share names."""
    return package.filename
