"""Finding an interpreter: the running one at no cost, others where version managers put them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prebuilt.lock import interpreter
from prebuilt.lock.interpreter import find_interpreter

OWN = "{}.{}".format(*sys.version_info)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Give a home folder, empty, and a machine on which nothing else is found."""
    for name in ("XDG_DATA_HOME", "UV_PYTHON_INSTALL_DIR", "PYENV_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    interpreter._search.cache_clear()
    yield tmp_path
    interpreter._search.cache_clear()


def test_the_running_python_is_found_without_starting_anything(monkeypatch: pytest.MonkeyPatch):
    """The second deploy asks too, and has no time for a process."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert find_interpreter(OWN) == Path(sys.executable)


@pytest.mark.parametrize("place", ["bin", ".local/share/uv/python/cpython-{}.1-linux/bin", ".pyenv/versions/{}.1/bin"])
def test_pythons_on_path_and_of_version_managers_are_found(machine: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    """On PATH, under uv's care, under pyenv's care."""
    expected = machine / place.format(OWN) / f"python{OWN}"
    expected.parent.mkdir(parents=True)
    expected.symlink_to(sys.executable)
    monkeypatch.setattr(interpreter, "_is_running", lambda _: False)
    assert find_interpreter(OWN) == expected


@pytest.mark.parametrize(
    "answer", ["pypy 3.99 final ", "cpython 3.98 final ", "cpython 3.99 beta ", "cpython 3.99 final t"]
)
def test_a_python_that_would_give_other_bytecode_is_passed_over(
    machine: Path, monkeypatch: pytest.MonkeyPatch, answer: str
):
    """Another implementation, another version, a preview, a build without the GIL."""
    (machine / "bin").mkdir()
    (machine / "bin" / "python3.99").symlink_to(sys.executable)
    monkeypatch.setattr(interpreter, "_PROBE", f"print({answer!r})")
    assert find_interpreter("3.99") is None
    monkeypatch.setattr(interpreter, "_PROBE", "print('cpython 3.99 final ')")
    interpreter._search.cache_clear()
    assert find_interpreter("3.99") is not None


def test_a_shim_is_not_started(machine: Path):
    """A version manager's script takes long and may start any Python, or none."""
    shim = machine / "bin" / "python3.99"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\ntouch {machine}/started\necho 'cpython 3.99 final '\n")
    shim.chmod(0o755)
    assert find_interpreter("3.99") is None
    assert not (machine / "started").exists()


def test_absence_is_none(machine: Path):
    """Nothing is downloaded."""
    assert find_interpreter("3.99") is None
