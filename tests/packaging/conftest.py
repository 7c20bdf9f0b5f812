"""Built wheels, and fresh environments to install them into."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.wheels import Built, build_all

Install = Callable[..., Path]


@pytest.fixture(scope="session")
def built() -> dict[str, Built]:
    """Return what each package builds to, by its short name."""
    return build_all()


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Give a function that installs what it is named into a fresh environment and returns its interpreter."""
    folder = tmp_path / "environment"
    python = folder / "bin" / "python"

    def install_into_fresh(*what: str | Path) -> Path:
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *what], check=True)
        return python

    return install_into_fresh


@pytest.fixture
def run_in(tmp_path: Path) -> Callable[[Path, str], str]:
    """Give a function that runs a line of Python far from the sources and returns what it printed."""
    home = tmp_path / "home"

    def run(python: Path, code: str) -> str:
        home.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW", "PYTHON"))}
        result = subprocess.run(
            [python, "-W", "error::ImportWarning", "-c", code],
            check=False,
            cwd=home,
            env={**environment, "HOME": str(home), "METAFLOW_USER": "somebody"},
            text=True,
            capture_output=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
