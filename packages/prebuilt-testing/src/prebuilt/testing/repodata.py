"""Conda channels of metadata alone: enough for a solver, with no package files behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPackage:
    """What a channel lists of one package file that does not exist.

    Attributes:
        subdir: ``noarch`` makes it a noarch Python package if it depends on Python, else a generic one.
        suffix: ``.conda`` or ``.tar.bz2``.
        more: Further fields of its record, such as ``purls``; None as value leaves a field out.
    """

    name: str
    version: str
    build: str = "0"
    build_number: int = 0
    depends: Sequence[str] = ()
    constrains: Sequence[str] = ()
    subdir: str = "linux-64"
    suffix: str = ".conda"
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def filename(self) -> str:
        """Name of the file."""
        return f"{self.name}-{self.version}-{self.build}{self.suffix}"

    def record(self) -> dict[str, Any]:
        """Return the record in ``repodata.json``. Size and hash are made up, the same each time."""
        python = any(spec.split(" ")[0] == "python" for spec in self.depends)
        noarch = {"noarch": "python" if python else "generic"} if self.subdir == "noarch" else {}
        record = {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": self.build_number,
            "depends": list(self.depends),
            "constrains": list(self.constrains),
            "subdir": self.subdir,
            "sha256": hashlib.sha256(self.filename.encode()).hexdigest(),
            "size": 1000 + len(self.filename),
            **noarch,
            **self.more,
        }
        return {key: value for key, value in record.items() if value is not None}


def write_repodata(folder: Path, packages: Iterable[ListedPackage]) -> str:
    """Write a channel that lists `packages` into `folder`, and return its URL (``file://…``)."""
    listed = list(packages)
    for subdir in sorted({"noarch", "linux-64", *(package.subdir for package in listed)}):
        here = [package for package in listed if package.subdir == subdir]
        repodata = {
            "info": {"subdir": subdir},
            "packages": {p.filename: p.record() for p in here if p.suffix == ".tar.bz2"},
            "packages.conda": {p.filename: p.record() for p in here if p.suffix == ".conda"},
            "repodata_version": 1,
        }
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        (folder / subdir / "repodata.json").write_text(json.dumps(repodata), encoding="utf-8")
    return folder.as_uri()
