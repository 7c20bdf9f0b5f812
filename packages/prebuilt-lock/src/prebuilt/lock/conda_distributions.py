"""Which Python distributions a conda package brings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from prebuilt.core.lock import CondaPackage
from prebuilt.lock.conda_specs import dependency_names

_PURL = re.compile(r"pkg:pypi/([^@?#]+)(?:@([^?#]+))?")
_PYTHON_BUILD = re.compile(r"py\d{2,}")
# Conda packages that bring a distribution of another name. Source: the mapping that prefix.dev publishes
# (https://github.com/prefix-dev/parselmouth), for names that are common in flows; channels with purls need no table.
_OTHER_NAMES = {
    "brotli-python": "brotli",
    "dask-core": "dask",
    "jupyter_core": "jupyter-core",
    "lz4-python": "lz4",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "pyarrow-core": "pyarrow",
    "pytables": "tables",
    "python-blosc": "blosc",
    "python-build": "build",
    "python-duckdb": "duckdb",
    "python-fastjsonschema": "fastjsonschema",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-kaleido": "kaleido",
    "python-tzdata": "tzdata",
    "python-xxhash": "xxhash",
    "pytorch": "torch",
    "ray-core": "ray",
    "sentencepiece-python": "sentencepiece",
    "tensorflow-base": "tensorflow",
}
# Conda packages that share a name with a distribution but do not bring it.
_NO_DISTRIBUTION = {
    "python",
    "python_abi",
    "python-gil",
    "python-freethreading",
    "graphviz",
    "tzdata",
    "xgboost",
    "opencv",
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CondaDistribution:
    """A Python distribution that conda brings.

    Attributes:
        name: Normalised name on PyPI.
        version: As PEP 440 has it, without a local part.
    """

    name: str
    version: str


def distributions_of(package: CondaPackage, purls: Sequence[str] = ()) -> tuple[CondaDistribution, ...]:
    """Return what `package` brings for pip's eyes: by its purls where it has any, else by its name.

    A package whose version is none in PEP 440's sense brings nothing that could be spoken of.
    """
    by_purl = [(match[1], match[2]) for match in map(_PURL.match, purls) if match]
    if by_purl:
        named = [(canonicalize_name(unquote(name)), version or package.version) for name, version in by_purl]
    elif _brings_python(package):
        named = [(canonicalize_name(_OTHER_NAMES.get(package.name, package.name)), package.version)]
    else:
        named = []
    versions = [(name, _public_version(version)) for name, version in named]
    return tuple(CondaDistribution(name=name, version=version) for name, version in versions if version)


def _brings_python(package: CondaPackage) -> bool:
    needs_python = not {"python", "python_abi"}.isdisjoint(dependency_names(package.depends))
    is_built_for_it = package.noarch == "python" or _PYTHON_BUILD.search(package.build) is not None
    return needs_python and is_built_for_it and package.name not in _NO_DISTRIBUTION


def _public_version(version: str) -> str | None:
    try:
        return Version(version).public
    except InvalidVersion:
        return None
