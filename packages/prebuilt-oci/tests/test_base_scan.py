from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prebuilt.oci.base_scan import inspect

_ASK = """
import json, os, sys, sysconfig
library = os.path.join(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "-")
print(json.dumps([sys.version.split()[0], os.path.realpath(getattr(sys, "_base_executable", sys.executable)), library]))
"""


def interpreters() -> list[str]:
    """Return the interpreters of this machine: the running one and what is on PATH and where Debian has it."""
    names = [f"python3.{minor}" for minor in range(9, 15)]
    found = [shutil.which(name) for name in names] + [sys.executable, "/usr/bin/python3"]
    return sorted({path for path in found if path and os.access(path, os.X_OK) and is_program(path)})


def is_program(path: str) -> bool:
    """Return whether a file is a Linux program, not a script."""
    with Path(path).open("rb") as file:
        return file.read(4) == b"\x7fELF"


@pytest.mark.parametrize("executable", interpreters())
def test_the_version_of_a_real_interpreter_is_found(executable: str) -> None:
    """Static or with a shared library: what Python says of itself is written in its own file or in libpython."""
    asked = subprocess.run([executable, "-I", "-c", _ASK], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    version, real, library = json.loads(asked.stdout)
    files = [Path(path) for path in (real, library) if Path(path).is_file() and ".a" not in Path(path).suffixes]

    found = set()
    for path in files:
        with path.open("rb") as file:
            found |= inspect(f"usr/bin/{path.name}", file)

    xy = version.rpartition(".")[0]
    assert {one for one in found if one.startswith(f"{xy}.")} == {version.rstrip("+")}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this machine has no GNU C library")
def test_the_version_of_the_real_c_library_is_found() -> None:
    """As the running process has it mapped."""
    mapped = Path("/proc/self/maps").read_text().splitlines()
    path = next(Path(line.split()[-1]) for line in mapped if line.endswith(("/libc.so.6", "-2.31.so", "-2.28.so")))

    with path.open("rb") as file:
        assert platform.libc_ver()[1] in inspect("lib/libc.so.6", file)


@pytest.mark.parametrize("offset", range((1 << 20) - 10, (1 << 20) + 2))
def test_a_version_across_pieces_is_found(offset: int) -> None:
    """Wherever the file is cut while it is read."""
    data = b"\0" * offset + b"3.11.2\0" + b"\0" * 100

    assert inspect("usr/bin/python3.11", io.BytesIO(data)) == {"3.11.2"}


@pytest.mark.parametrize("data", [b"13.11.2\0", b"1.3.11.2\0", b"3.11.2 \0", b"3.11\0", b"python3.11\0"])
def test_what_only_looks_like_a_version_is_not_one(data: bytes) -> None:
    """A version is a string of its own, or the end of one that goes on differently."""
    assert inspect("usr/bin/python3.11", io.BytesIO(b"\0" + data)) == set()


@pytest.mark.parametrize("path", ["usr/bin/perl", "usr/bin/pythonish", "lib/libc.a", "usr/share/python3.11/x"])
def test_other_files_are_not_read(path: str) -> None:
    """Nothing but interpreters and the C library is looked into."""
    content = io.BytesIO(b"\x003.11.2\0")

    assert inspect(path, content) == set()
    assert content.tell() == 0
