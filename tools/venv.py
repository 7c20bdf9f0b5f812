"""A virtual environment for one purpose, made on a machine that has Python and nothing else.

Standard library only, since nothing is installed when it runs.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import machine

ROOT = Path(__file__).resolve().parent.parent
_MADE_WITH = "made-with"
_FIRST = ("uv", "tomli>=2; python_version < '3.11'")

# uv does not read pip's configuration. What a user has told pip, such as a company's index, is told to uv.
_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
_LISTS = {"UV_INDEX": " ", "UV_FIND_LINKS": ","}


class NoEnvironmentError(Exception):
    """No virtual environment can be made here; the message says what to do."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is ready.

    Attributes:
        folder: Where it is.
        variables: The process environment for what runs in it.
    """

    folder: Path
    variables: Mapping[str, str]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def run(self, *command: str) -> int:
        """Run a program of the environment in the repository; return its exit status."""
        program = self.folder / "bin" / command[0]
        return subprocess.run([str(program), *command[1:]], check=False, cwd=ROOT, env=dict(self.variables)).returncode


def ensure(purpose: str, requirements: Sequence[str] = (), packages: Sequence[str] = ()) -> Environment:
    """Return an environment that has uv, `requirements` and the named `packages` of this repository, made if it is not there yet.

    Raises:
        NoEnvironmentError: It cannot be made; the message says what to do.
    """
    folder = ROOT / ".cache" / f"{purpose}-{sys.version_info.major}.{sys.version_info.minor}"
    wanted = _fingerprint([*requirements, *packages])
    stamp = folder / _MADE_WITH
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"Making a virtual environment in {folder.relative_to(ROOT)} (once).", flush=True)
        _make(folder)
        _install(folder, [*requirements, *_editables(folder, packages)])
        stamp.write_text(wanted, encoding="utf-8")
    return Environment(folder, _variables(folder))


def uv_program() -> str:
    """Return uv: what came with this Python's nox (``nox[uv]``), which no PATH may have, or else the machine's."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return find_uv_bin()
    return "uv"


def _fingerprint(requirements: Sequence[str]) -> str:
    """Return what changes when the environment must be made anew: Python, the requirements, what packages declare."""
    digest = hashlib.sha256(repr((sys.executable, sys.version, list(requirements))).encode())
    for file in sorted(ROOT.glob("packages/*/pyproject.toml")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _make(folder: Path) -> None:
    """Make an empty environment with uv in it, with what this machine has."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    install_uv = _empty(folder)
    result = subprocess.run(install_uv, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        raise NoEnvironmentError(f"cannot install uv into {folder}:\n{result.stdout[-2000:]}")


def _empty(folder: Path) -> list[str]:
    """Make an empty environment; return the command that installs uv into it."""
    python = str(folder / "bin" / "python")
    with_pip = [python, "-m", "pip", "install", "--quiet", *_FIRST]
    if _can_import("ensurepip", "ensurepip.version()") and _can_import("venv"):
        _run(sys.executable, "-m", "venv", str(folder))
        return with_pip
    uv = shutil.which("uv")
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        return [uv, "pip", "install", "--quiet", "--python", python, *_FIRST]
    if _can_import("pip", "pip.__version__") and _can_import("venv"):
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        return [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *_FIRST]
    if os.geteuid() == 0 and sys.executable.startswith("/usr/bin/") and shutil.which("apt-get"):
        print("This Python cannot make virtual environments; installing python3-venv.", flush=True)
        machine.apt_get_install(f"python3.{sys.version_info.minor}-venv")
        _run(sys.executable, "-m", "venv", str(folder))
        return with_pip
    raise NoEnvironmentError(
        f"{sys.executable} has neither venv with ensurepip nor pip, and there is no uv: "
        "install one of them (Debian, Ubuntu: apt-get install python3-venv)"
    )


def _can_import(module: str, then: str = "") -> bool:
    """Ask the interpreter itself: Debian leaves parts of the standard library out."""
    command = [sys.executable, "-c", f"import {module}; {then}"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _editables(folder: Path, packages: Sequence[str]) -> list[str]:
    """Return what installs `packages` and those that they need; asked of the new environment, which can read TOML."""
    command = [str(folder / "bin" / "python"), "-m", "tools.packages", *packages]
    return subprocess.run(command, check=True, cwd=ROOT, text=True, stdout=subprocess.PIPE).stdout.splitlines()


def _install(folder: Path, requirements: Sequence[str]) -> None:
    command = [str(folder / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    if not requirements:
        return
    result = subprocess.run([*command, *requirements], check=False, cwd=ROOT, env=_variables(folder))
    if result.returncode != 0:
        raise NoEnvironmentError(f"cannot install {' '.join(requirements)}: see the lines above")


def _variables(folder: Path) -> dict[str, str]:
    """Return the process environment with this environment's programs first, and uv told what pip was told."""
    variables = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
    variables["PATH"] = os.pathsep.join([str(folder / "bin"), variables.get("PATH", os.defpath)])
    variables["VIRTUAL_ENV"] = str(folder)
    for name, value in _told_to_pip(folder).items():
        variables.setdefault(name, value)
    return variables


def _told_to_pip(folder: Path) -> dict[str, str]:
    """Return pip's configuration, files and environment alike, as uv's variables."""
    python = folder / "bin" / "python"
    for pip in ([str(python), "-m", "pip"], [sys.executable, "-m", "pip"]):
        listed = subprocess.run([*pip, "config", "list"], check=False, text=True, capture_output=True)
        if listed.returncode == 0:
            return as_uv(listed.stdout)
    return {}


def as_uv(listing: str) -> dict[str, str]:
    """Return uv's variables for the lines of ``pip config list``, each ``section.option='value'``."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        variable = _PIP_TO_UV.get(key.rpartition(".")[2])
        if equals and variable:
            values = [each for each in str(ast.literal_eval(value)).split() if "://" in each or Path(each).exists()]
            found[variable] = _LISTS.get(variable, " ").join(values)
    return {variable: value for variable, value in found.items() if value}
