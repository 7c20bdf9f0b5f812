"""Go, which builds the engines that no package brings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prebuilt.testing.engines.cache import kept
from prebuilt.testing.engines.debian import debian_suite
from prebuilt.testing.engines.process import EngineError

_OLDEST = (1, 26)  # what the newest module that we build asks for
_VERSION = ".".join(map(str, _OLDEST))
_SUITE = "sid"
_WAITS_S = (2.0, 10.0)
_ENVIRON = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
"""As this process began: a test may have set a proxy that leads to servers of its own, and be the first to want an engine."""


def go_program() -> Path:
    """Return ``go``: the machine's, or where it is missing or too old Debian's, unpacked into the cache and not installed.

    Raises:
        EngineError: It is not there and cannot be got.
    """
    installed = shutil.which("go")
    if installed and _version(installed) >= _OLDEST:
        return Path(installed)

    def unpack(folder: Path) -> None:
        with debian_suite(_SUITE) as suite:
            suite.unpack([f"golang-{_VERSION}-go", f"golang-{_VERSION}-src"], folder)

    return kept(f"golang-{_VERSION}", unpack) / "usr" / "lib" / f"go-{_VERSION}" / "bin" / "go"


def build_programs(module: str, *programs: str, folder: Path, values: Mapping[str, str] | None = None) -> None:
    """Build programs of a module into `folder`, static and stripped.

    Args:
        module: With its version: ``github.com/moby/buildkit@v0.34.2``.
        programs: Folders of the module: ``./cmd/buildctl``.
        folder: Where they go, named after their folders.
        values: What variables of packages are set to: ``example.org/package.version``.

    Raises:
        EngineError: There is no Go, the module cannot be downloaded, or the build failed.
    """
    found = json.loads(_run(str(go_program()), "mod", "download", "-json", module, tried=f"download {module}"))
    # Inside its own folder the module is the main one, so that its replace directives count.
    build_folder(Path(found["Dir"]), *programs, folder=folder, values=values)


def build_folder(
    module: Path, *programs: str, folder: Path, tags: Sequence[str] = (), values: Mapping[str, str] | None = None
) -> None:
    """Build programs of the module whose ``go.mod`` is in the folder `module`; otherwise as :func:`build_programs`.

    Args:
        module: The folder.
        programs: Folders of the module: ``./cmd/buildctl``.
        folder: Where they go, named after their folders; the module's own program is named after the module.
        tags: Build tags.
        values: As there.

    Raises:
        EngineError: There is no Go, a module that is needed cannot be downloaded, or the build failed.
    """
    linker = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in (values or {}).items())])
    options = ["-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags={linker}", f"-o={folder}/"]
    if tags:
        options.append(f"-tags={','.join(tags)}")
    _run(str(go_program()), "build", *options, *programs, tried=f"build {module.name}", cwd=str(module))


def _run(*command: str, tried: str, cwd: str | None = None) -> str:
    """Return what Go prints. It asks for each module once; what it has got and built is kept, so that another try goes on from there."""
    for wait_s in (*_WAITS_S, None):
        done = subprocess.run(command, cwd=cwd, env=_ENVIRON, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if wait_s is not None:
            time.sleep(wait_s)
    raise EngineError(tried, reason=done.stderr or done.stdout)


def _version(go: str) -> tuple[int, ...]:
    # What the program itself is: in a module's folder it may become another one.
    done = subprocess.run([go, "version"], capture_output=True, text=True, check=False, cwd="/")
    found = re.search(r"\bgo(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()
