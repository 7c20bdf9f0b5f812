"""Tables in documents that are made from the packages themselves, so that they cannot be out of date.

A table stands between ``<!-- packages -->`` and ``<!-- /packages -->``. `python -m tools.tables` makes it anew,
`--check` fails where that would change anything.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tools.packages import ROOT, Package, all_packages

DOCUMENTS = ("README.md",)
_BLOCK = re.compile(r"(<!-- (?P<name>\w+) -->\n).*?(<!-- /(?P=name) -->)", re.DOTALL)


def packages_table(packages: Iterable[Package]) -> str:
    """Return one row for each package: what it is called, what it is for."""
    rows = [
        f"| [`{package.name}`](packages/{package.folder.name}) | `{package.module}` | {package.project['description']} |"
        for package in packages
    ]
    return "\n".join(["| package | imports as | what it holds |", "| --- | --- | --- |", *rows])


_TABLES: dict[str, Callable[[Iterable[Package]], str]] = {"packages": packages_table}


def renewed(text: str, packages: Iterable[Package]) -> str:
    """Return `text` with each of its tables made anew."""
    listed = list(packages)
    return _BLOCK.sub(lambda match: f"{match[1]}{_TABLES[match['name']](listed)}\n{match[3]}", text)


def main(arguments: list[str]) -> int:
    """Make the tables anew, or with ``--check`` say which are stale; return the exit status."""
    packages = all_packages().values()
    stale: list[Path] = []
    for document in (ROOT / name for name in DOCUMENTS):
        before = document.read_text(encoding="utf-8")
        after = renewed(before, packages)
        if after != before:
            stale.append(document)
            if "--check" not in arguments:
                document.write_text(after, encoding="utf-8")
    for document in stale:
        print(f"{document.relative_to(ROOT)}: {'stale, run `nox -s format`' if '--check' in arguments else 'renewed'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
