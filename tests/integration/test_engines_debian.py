"""Packages of another suite or architecture, which leave the machine's own as they are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from prebuilt.testing.engines.debian import debian_suite
from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.engines.wanted import wanted_engine

pytestmark = pytest.mark.docker  # whose current release comes this way

ELF_MACHINE = slice(18, 20)  # Source: <elf.h>
AARCH64 = (183).to_bytes(2, "little")


def test_packages_are_unpacked_and_not_installed(tmp_path: Path):
    """A program for another architecture comes with the packages that it depends on, and apt here knows nothing of it."""
    before = subprocess.run(["apt-get", "indextargets"], check=True, capture_output=True).stdout
    with wanted_engine(), debian_suite("bookworm", architecture="arm64") as suite:
        suite.unpack_closure(["dash"], tmp_path)
        assert suite.version("dash").startswith("0.5.")
        with pytest.raises(EngineError, match="no-such-package"):
            suite.unpack(["no-such-package"], tmp_path)
        with pytest.raises(EngineError, match="no-such-package"):
            suite.version("no-such-package")
    assert (tmp_path / "bin" / "dash").read_bytes()[ELF_MACHINE] == AARCH64
    assert list(tmp_path.glob("lib/aarch64-linux-gnu/libc.so.6"))
    assert subprocess.run(["apt-get", "indextargets"], check=True, capture_output=True).stdout == before
