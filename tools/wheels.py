"""Built wheels and source distributions, made again only when the package has changed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.packages import ROOT, Package, all_packages
from tools.venv import uv_program

STORE = ROOT / ".nox" / "wheels"
_SKIPPED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "dist", "changelog.d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What one build of a package made."""

    package: Package
    wheel: Path
    sdist: Path


def build_all(packages: Iterable[Package] | None = None) -> dict[str, Built]:
    """Return what each package builds to, by short name."""
    chosen = all_packages().values() if packages is None else packages
    return {package.short: build(package) for package in chosen}


def build(package: Package) -> Built:
    """Return what `package` builds to: the sdist from the folder, the wheel from the sdist."""
    folder = STORE / f"{package.name}-{_fingerprint(package.folder)}"
    with _alone(package):
        if not folder.is_dir():
            _build_into(package, folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Built(package=package, wheel=wheel, sdist=sdist)


@contextlib.contextmanager
def _alone(package: Package) -> Iterator[None]:
    """Keep other sessions from building `package`: who comes second finds it built."""
    STORE.mkdir(parents=True, exist_ok=True)
    with (STORE / f".{package.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_into(package: Package, folder: Path) -> None:
    """Build into `folder`, which is there whole or not at all, and drop what earlier builds left."""
    with tempfile.TemporaryDirectory(dir=STORE) as temporary:
        out = Path(temporary) / "out"
        subprocess.run([uv_program(), "build", "--quiet", "--out-dir", out, package.folder], check=True)
        (out / ".gitignore").unlink(missing_ok=True)
        for old in STORE.glob(f"{package.name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        out.rename(folder)


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterable[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        yield from (Path(base, name) for name in names)
