"""What `nox -s new-package` makes is a package that needs nothing more to pass."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.packages import ROOT, Package
from tools.skeleton import write
from tools.wheels import Built, build

KINDS = [["registry"], ["builder"], ["registry", "builder"]]


@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
def test_passes_its_own_tests(
    kinds: list[str], tmp_path: Path, built: dict[str, Built], install: Callable[..., Path]
) -> None:
    """Its wheel builds, installs, and passes the tests that came with it."""
    folder = write(ROOT, "sample", kinds, into=tmp_path / "packages")
    python = install(build(Package.read(folder)).wheel, built["core"].wheel, built["oci"].wheel, built["testing"].wheel)
    subprocess.run(
        [python, "-m", "pytest", "-q", "-W", "error", "--import-mode=importlib", folder / "tests"], check=True
    )


@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
def test_is_clean(kinds: list[str], tmp_path: Path, built: dict[str, Built], install: Callable[..., Path]) -> None:
    """Once its imports are sorted, it satisfies the linter, the formatter and the type checker."""
    folder = write(ROOT, "sample", kinds, into=tmp_path / "packages")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for command in ("check --fix --select=I", "check", "format --check"):
        subprocess.run(["ruff", *command.split(), "--no-cache"], check=True, cwd=tmp_path)
    python = install(build(Package.read(folder)).wheel, built["core"].wheel, built["oci"].wheel, "mypy")
    mypy = (python, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}", "--package=prebuilt.sample")
    subprocess.run([*mypy, f"--cache-dir={tmp_path / 'mypy'}"], check=True, cwd=tmp_path)


def test_refuses_names_that_cannot_be_imported(tmp_path: Path) -> None:
    """A name with a dash would make a module that nobody can import."""
    with pytest.raises(ValueError, match="cannot be imported"):
        write(ROOT, "my-registry", ["registry"], into=tmp_path)


def test_refuses_to_overwrite(tmp_path: Path) -> None:
    """A package that is there is left alone."""
    write(ROOT, "sample", ["registry"], into=tmp_path)
    with pytest.raises(ValueError, match="is there already"):
        write(ROOT, "sample", ["builder"], into=tmp_path)


def test_session_exists() -> None:
    """The command of the README makes it."""
    listed = subprocess.run(
        [sys.executable, "-m", "nox", "--list"], check=True, cwd=ROOT, text=True, capture_output=True
    ).stdout
    assert "new-package" in listed
