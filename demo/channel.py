"""A conda channel built on the spot: this machine's Python, and packages made of the wheels that the package index has."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from prebuilt.core.platforms import Platform
from prebuilt.core.tree import Entry, FileEntry, PathContent
from prebuilt.testing.conda_channel import CondaChannel, build_channel
from prebuilt.testing.conda_package import CondaPackageSpec
from prebuilt.testing.conda_python import python_package
from prebuilt.testing.interpreter import Interpreter

_LEFT_OUT = re.compile(r"(^|/)(tests?|__pycache__|bin)/|\.\./")


def make_channel(folder: Path, wanted: Iterable[str]) -> CondaChannel:
    """Return a channel in `folder` that has Python, the `wanted` distributions and what they need."""
    interpreter = Interpreter.inspect()
    staged = folder / "wheels"
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", staged, *wanted], check=True
    )
    packages = [_package(each, staged, interpreter.xy) for each in distributions(path=[str(staged)])]
    return build_channel(folder / "channel", [python_package(interpreter), *packages])


def _package(distribution: Distribution, staged: Path, xy: str) -> CondaPackageSpec:
    return CondaPackageSpec(
        name=canonicalize_name(distribution.metadata["Name"]),
        version=distribution.version,
        subdir=Platform.host().subdir,
        files=tuple(_files(distribution, staged, f"lib/python{xy}/site-packages")),
        depends=(f"python {xy}.*", *_needs(distribution)),
    )


def _files(distribution: Distribution, staged: Path, place: str) -> Iterator[Entry]:
    for file in distribution.files or ():
        source = staged / file
        if not _LEFT_OUT.search(file.as_posix()) and source.is_file():
            yield FileEntry(path=f"{place}/{file.as_posix()}", content=PathContent(source))


def _needs(distribution: Distribution) -> Iterator[str]:
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)
