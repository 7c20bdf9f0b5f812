"""Engines that integration tests need, as the tests' markers name them, and the session that each test is of."""

from __future__ import annotations

import re
from pathlib import Path

from tools.packages import read_toml

ON_MINIMUMS = "minimums"
"""The marker of tests that the session ``minimums(metaflow)`` runs as well, beside that of their engine."""

_NOT_ENGINES = {"slow", "root", ON_MINIMUMS}


def marked(root: Path) -> list[str]:
    """Return the pytest markers that stand for an engine."""
    markers = read_toml(root / "pyproject.toml")["tool"]["pytest"]["ini_options"]["markers"]
    names = [marker.partition(":")[0] for marker in markers]
    return [name for name in names if name not in _NOT_ENGINES]


def tested(root: Path) -> list[str]:
    """Return the engines that at least one test wants."""
    return [engine for engine in marked(root) if test_files(root, engine)]


def selection(root: Path, engine: str | None) -> str:
    """Return pytest's expression for the tests of an engine's session, or of none.

    A test that wants several engines is of the session of the one whose marker is listed last, and of no other.
    """
    engines = marked(root)
    later = engines if engine is None else engines[engines.index(engine) + 1 :]
    return " and ".join([*([engine] if engine else []), *(f"not {each}" for each in later)])


def test_files(root: Path, engine: str) -> list[Path]:
    """Return the test files that want `engine`, or have another marker of that name."""
    mark = re.compile(rf"\bmark\.{engine}\b")
    folders = ("packages/*/tests", "tests/integration", "tests/example_backend")
    files = [file for folder in folders for file in root.glob(f"{folder}/**/test_*.py")]
    return sorted(file for file in files if mark.search(file.read_text(encoding="utf-8")))
