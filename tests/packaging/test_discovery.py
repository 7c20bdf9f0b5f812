"""Metaflow finds the extension in its built wheel, alone and beside another."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.packages import all_packages, closure
from tools.wheels import Built

ENVIRONMENTS = "from metaflow.plugins import ENVIRONMENTS; print(*[each.TYPE for each in ENVIRONMENTS])"
EXTENSIONS = """
from metaflow.extension_support import get_modules
print(*sorted(each.tl_package for each in get_modules("plugins")))
"""


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of another extension with setuptools, whose top_level.txt Metaflow sees first."""
    folder = tmp_path_factory.mktemp("neighbour")
    plugins = folder / "metaflow_extensions" / "neighbour" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "mfextinit_neighbour.py").write_text("ENVIRONMENTS_DESC = []\n")
    (folder / "pyproject.toml").write_text(
        textwrap.dedent("""
            [build-system]
            requires = ["setuptools"]
            build-backend = "setuptools.build_meta"
            [project]
            name = "neighbour"
            version = "1"
            [tool.setuptools.packages.find]
            include = ["metaflow_extensions.*"]
            namespaces = true
        """)
    )
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", folder / "dist", folder], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture
def wheels(built: dict[str, Built]) -> list[Path]:
    """Return the wheels of the extension and of what it needs."""
    packages = all_packages()
    return [built[each.short].wheel for each in closure([packages["metaflow"]], packages.values())]


def test_found_alone(wheels: list[Path], install: Callable[..., Path], run_in: Callable[[Path, str], str]) -> None:
    """--environment=prebuilt is there once the wheel is installed."""
    assert "prebuilt" in run_in(install(*wheels), ENVIRONMENTS).split()


def test_found_beside_another_extension(
    wheels: list[Path], neighbour: Path, install: Callable[..., Path], run_in: Callable[[Path, str], str]
) -> None:
    """Another extension in the same environment hides neither itself nor ours."""
    python = install(*wheels, neighbour)
    assert "prebuilt" in run_in(python, ENVIRONMENTS).split()
    assert {"neighbour", "prebuilt"} <= set(run_in(python, EXTENSIONS).split())


def test_metaflow_starts_without_the_libraries(
    built: dict[str, Built], install: Callable[..., Path], run_in: Callable[[Path, str], str], tmp_path: Path
) -> None:
    """In a task there is no prebuilt.*, only the extension's own files: Metaflow imports there all the same."""
    python = install("metaflow")
    subprocess.run(
        ["uv", "pip", "install", "--quiet", "--no-deps", "--python", python, built["metaflow"].wheel], check=True
    )
    assert "prebuilt" in run_in(python, f"{ENVIRONMENTS}\nimport metaflow").split()
