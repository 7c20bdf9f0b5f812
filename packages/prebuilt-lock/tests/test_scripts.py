"""Scripts: first lines and entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prebuilt.core.errors import PackageError
from prebuilt.lock.scripts import console_script, console_scripts, rewritten, shebang


def test_a_short_path_is_the_first_line():
    """The usual case is what the kernel reads by itself."""
    assert shebang("/opt/prebuilt/env/bin/python") == b"#!/opt/prebuilt/env/bin/python\n"


@pytest.mark.parametrize("folder", ["with a space", "long" * 40])
def test_a_path_that_the_kernel_cannot_read_goes_by_way_of_the_shell(tmp_path: Path, folder: str):
    """A script runs also where the environment's path has spaces in it, or is too long for a first line."""
    python = tmp_path / folder / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    script = tmp_path / "script"
    script.write_bytes(rewritten(b"#!python\nimport sys\nprint(sys.argv[1:])\n", str(python)))
    script.chmod(0o755)
    assert subprocess.run([script, "a b"], capture_output=True, text=True, check=True).stdout == "['a b']\n"


def test_entry_points_are_read_with_case_extras_and_dotted_attributes():
    """Names keep their case; extras say nothing about what is called; other groups are no scripts."""
    text = "[console_scripts]\nRun = pkg.cli:main [fast]\nrun = pkg:App.run\n[gui_scripts]\ngui=pkg:gui\n[other]\nx = y:z\n"
    assert console_scripts(text, of="a.whl") == {
        "Run": ("pkg.cli", "main"),
        "run": ("pkg", "App.run"),
        "gui": ("pkg", "gui"),
    }


@pytest.mark.parametrize("line", ["x = pkg", "../x = pkg:main", ".. = pkg:main", "x = pkg:main; import os"])
def test_an_entry_point_that_is_no_script_is_refused(line: str):
    """A line that names no function, or a name that leads elsewhere, is an error that names the wheel."""
    with pytest.raises(PackageError, match=r"read the entry points of a\.whl"):
        console_scripts(f"[console_scripts]\n{line}\n", of="a.whl")


def test_a_malformed_file_of_entry_points_is_refused():
    """So is a file without sections."""
    with pytest.raises(PackageError, match="entry points"):
        console_scripts("x = pkg:main\n", of="a.whl")


def test_a_script_calls_its_function_and_ends_with_its_result(tmp_path: Path):
    """What the function returns is the exit status."""
    (tmp_path / "pkg.py").write_text("class App:\n    @staticmethod\n    def run():\n        return 7\n")
    (tmp_path / "script").write_bytes(console_script("pkg", "App.run", sys.executable))
    assert subprocess.run([sys.executable, tmp_path / "script"], check=False).returncode == 7
