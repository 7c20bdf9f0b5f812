"""Empty wheels that stand for what conda brings, so that uv resolves against it and never over it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from prebuilt.lock.conda_distributions import CondaDistribution

_WHEEL = "Wheel-Version: 1.0\nGenerator: metaflow-prebuilt\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_stubs(distributions: Sequence[CondaDistribution], folder: Path) -> dict[str, str]:
    """Write a stub for each distribution into `folder`; return name → URL, to be used as constraints.

    A constraint by URL applies only where something needs the package, spares a question to the index, and does
    not reach the environments in which source is built.
    """
    return {distribution.name: _write_stub(distribution, folder).as_uri() for distribution in distributions}


def _write_stub(distribution: CondaDistribution, folder: Path) -> Path:
    version = f"{distribution.version}+conda"
    stem = f"{distribution.name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {distribution.name}\nVersion: {version}\n"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (("METADATA", metadata), ("WHEEL", _WHEEL), ("RECORD", "")):
            archive.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{name}", (2020, 1, 1, 0, 0, 0)), text)
    return wheel
