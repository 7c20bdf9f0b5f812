"""An interpreter of a given X.Y on this machine, to compile bytecode with."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from prebuilt.core.home import home_folder

_PROBE = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2], sys.version_info[3], sys.abiflags)"
_PROBE_TIMEOUT_S = 20


def find_interpreter(xy: str) -> Path | None:
    """Return a released CPython of version `xy`, or None if there is none that could be found.

    The running one if it fits (at no cost), else the first on PATH, under uv's or under pyenv's care. Found once for each
    process. Nothing is downloaded.
    """
    if _is_running(xy):
        return Path(sys.executable)
    return _search(xy)


def _is_running(xy: str) -> bool:
    info = sys.version_info
    ours = (sys.implementation.name, f"{info[0]}.{info[1]}", info.releaselevel, sys.abiflags)
    return bool(sys.executable) and ours == ("cpython", xy, "final", "")


@functools.lru_cache
def _search(xy: str) -> Path | None:
    return next((path for path in _candidates(xy, os.environ) if is_python(path, xy)), None)


def _candidates(xy: str, environ: Mapping[str, str]) -> Iterator[Path]:
    home = home_folder(environ)
    for folder in environ.get("PATH", "").split(os.pathsep):
        if folder:
            yield Path(folder) / f"python{xy}"
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    yield from sorted(uv.glob(f"cpython-{xy}.*/bin/python{xy}"), reverse=True)
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{xy}.*/bin/python{xy}"), reverse=True)


def is_python(path: Path, xy: str) -> bool:
    """Return whether `path` is a released CPython of version `xy` that runs."""
    try:
        with path.open("rb") as file:
            if file.read(2) == b"#!":  # a version manager's shim, which starts some Python or none
                return False
        probe = subprocess.run(
            [path, "-I", "-S", "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.stdout.rstrip("\n") == f"cpython {xy} final "
