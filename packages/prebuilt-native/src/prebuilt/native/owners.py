"""Who owns which file: two packages may bring the same one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from prebuilt.core.lock import LockedPackage


class Owners:
    """Collects the files of packages as their layers are made. Packages whose layers were there already are not in it."""

    def __init__(self) -> None:
        """Know nothing."""
        self._lock = threading.Lock()
        self._paths: dict[str, frozenset[str]] = {}

    def add(self, package: str, paths: Iterable[str]) -> None:
        """Note the files of `package`; bytecode goes with its source and is left out."""
        owned = frozenset(path for path in paths if not path.endswith(".pyc"))
        with self._lock:
            self._paths[package] = self._paths.get(package, frozenset()) | owned

    def overlaps(self, order: Sequence[str]) -> list[str]:
        """Return one sentence for each pair of packages that own a file; `order` says who lies above whom."""
        sentences: list[str] = []
        first: dict[str, str] = {}
        for package in order:
            shared: dict[str, list[str]] = {}
            for path in sorted(self._paths.get(package, ())):
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
