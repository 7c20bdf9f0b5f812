"""The interpreter layer: a virtual environment on a Python that is already there."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prebuilt.core.platforms import Platform
from prebuilt.core.spec import BasePython
from prebuilt.core.tree import BytesContent, FileEntry
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.tree_writer import write_tree
from prebuilt.lock.virtualenv import virtualenv_entries


def test_its_python_is_the_bases_and_sees_only_the_environment(target: InstallTarget, tmp_path: Path):
    """Its interpreter starts, has the prefix as its own, and finds site-packages there and nowhere else."""
    local = InstallTarget(
        prefix=str(tmp_path),
        root="",
        python_version=target.python_version,
        platform=Platform.host(),
        site_packages=target.site_packages,
    )
    base = BasePython(path=str(Path(sys._base_executable).resolve()), version=platform.python_version())
    module = FileEntry(path=f"{target.site_packages}/only_here.py", content=BytesContent(b"x = 1\n"))
    write_tree([*virtualenv_entries(base, local), module], tmp_path)
    program = (
        "import sys, json, only_here; print(json.dumps([sys.prefix, [p for p in sys.path if 'site-packages' in p]]))"
    )
    for name in ("python", "python3", f"python{target.python_xy}"):
        output = subprocess.run([tmp_path / "bin" / name, "-c", program], capture_output=True, check=True).stdout
        assert json.loads(output) == [str(tmp_path), [str(tmp_path / target.site_packages)]]


def test_it_says_nothing_of_this_machine(target: InstallTarget, listing: Callable[..., dict[str, Any]]):
    """The same base gives the same few files everywhere."""
    entries = virtualenv_entries(BasePython(path="/usr/local/bin/python3.11", version="3.11.7"), target)
    files = listing(entries, target)
    assert files["bin/python"] == "/usr/local/bin/python3.11"
    assert files["bin/python3"] == "python"
    assert files["pyvenv.cfg"] == (b"home = /usr/local/bin\ninclude-system-site-packages = false\nversion = 3.11.7\n")
    assert [entry.path for entry in entries] == sorted(entry.path for entry in entries)
