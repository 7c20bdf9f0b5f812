"""Values that many tests of the core start from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from prebuilt.core.lock import CondaPackage, Lock, LockedPackage, Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec

LINUX = Platform.parse("linux/amd64")


def sha256_of(text: str) -> str:
    """Return the hex digest of some text."""
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def wheel() -> Callable[..., Wheel]:
    """Return a maker of wheels by name."""

    def make(name: str, size_bytes: int = 1000, version: str = "1.0", **values: Any) -> Wheel:
        filename = f"{name}-{version}-py3-none-any.whl"
        known = {"role": "user", "url": f"https://files.example/{filename}", "sha256": sha256_of(name + version)}
        return Wheel(name=name, version=version, filename=filename, size_bytes=size_bytes, **{**known, **values})

    return make


@pytest.fixture
def conda() -> Callable[..., CondaPackage]:
    """Return a maker of conda packages by name."""

    def make(name: str, size_bytes: int = 1000, version: str = "1.0", **values: Any) -> CondaPackage:
        known = {
            "build": "h0_0",
            "build_number": 0,
            "subdir": "linux-64",
            "url": f"https://conda.example/linux-64/{name}-{version}-h0_0.conda",
            "sha256": sha256_of("conda" + name + version),
            "role": "user",
        }
        return CondaPackage(name=name, version=version, size_bytes=size_bytes, **{**known, **values})

    return make


@pytest.fixture
def base() -> BaseImage:
    """Return a base image that has Python 3.11.7."""
    return BaseImage(
        reference="python:3.11-slim",
        repository="docker.io/library/python",
        digest="sha256:" + "ab" * 32,
        platform=LINUX,
        layer_count=4,
        glibc="2.36",
        python=BasePython(path="/usr/local/bin/python3.11", version="3.11.7"),
    )


@pytest.fixture
def requirements() -> Requirements:
    """Return the requirements of a step that wants one package from PyPI."""
    return Requirements(python="3.11", target=Target(platform=LINUX), pypi={"pandas": "2.2.3"})


@pytest.fixture
def lock_of(requirements: Requirements, base: BaseImage) -> Callable[..., Lock]:
    """Return a maker of locks with the given packages."""

    def make(*packages: LockedPackage, **values: Any) -> Lock:
        on_base = requirements.on(base)
        known = {
            "req_id": on_base.req_id,
            "target": on_base.target,
            "python_version": "3.11.7",
            "python_source": "base",
            "resolved_at": datetime(2026, 11, 23, tzinfo=timezone.utc),
            "resolver": "uv 0.13",
        }
        return Lock(packages=packages, **{**known, **values})

    return make


@pytest.fixture
def spec_of(lock_of: Callable[..., Lock], base: BaseImage) -> Callable[..., ImageSpec]:
    """Return a maker of specs with the given packages."""
    return lambda *packages, **values: ImageSpec(lock=lock_of(*packages, **values), base=base)
