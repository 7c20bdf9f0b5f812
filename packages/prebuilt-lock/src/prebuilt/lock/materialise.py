"""A lock as an environment on this machine, for steps that run here: the same files as in an image, at a prefix of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import BuildError
from prebuilt.core.lock import Lock
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import BasePython
from prebuilt.core.storage import read_if_there, storage_errors, write_atomically
from prebuilt.core.tree import Entry
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.installer import LinkScripts, PackageInstaller
from prebuilt.lock.prepared import PreparedPackages
from prebuilt.lock.tree_writer import write_tree
from prebuilt.lock.virtualenv import virtualenv_entries

_MARKER = ".prebuilt-environment.json"
_FORMAT = 1  # raised when environments of the same lock must be made anew


def materialise(
    lock: Lock,
    prefix: Path,
    *,
    files: PackageFiles,
    base: BasePython | None,
    work_dir: Path,
    progress: ImageProgress,
    link_scripts: LinkScripts = "warn",
    cancellation: Cancellation | None = None,
) -> Path:
    """Make the environment of `lock` at `prefix` unless it is there, and return the path of its interpreter.

    The prefix is written into the files, so they are made where they will stay; a marker written last says that they are
    whole. Concurrent calls, also from other processes, wait for each other. No bytecode is compiled: Python does it as it
    imports, and here it can keep it.

    Args:
        lock: For the platform of this machine.
        prefix: An absolute path that nothing else uses.
        files: Where packages come from.
        base: The interpreter to build on where the lock's Python comes from the machine.
        work_dir: Where packages are unpacked meanwhile.
        progress: Told what is done.
        link_scripts: What a conda package with link scripts causes.
        cancellation: Looked at between files.

    Raises:
        BuildError: The lock wants an interpreter that is there, and `base` is None or of another version.
        FetchError: A package could not be downloaded.
        PackageError: A package cannot be installed.
        StorageError: The disk is full or not writable.
    """
    environment = _Environment(lock, prefix, base if lock.python_source == "base" else None)
    environment.check_base()
    if environment.is_whole():
        return environment.python
    with _exclusive(prefix.with_name(f".{prefix.name}.lock"), progress):
        if not environment.is_whole():
            target = InstallTarget.of(lock, prefix=str(prefix), root="")
            installer = PackageInstaller(
                files, target, compiler=None, work_dir=work_dir, link_scripts=link_scripts, note=progress.note
            )
            environment.make(installer, target, progress, cancellation or Cancellation())
    return environment.python


class _Environment:
    """One environment on this machine, whole or not. `base` is None where the interpreter is one of the lock's packages."""

    def __init__(self, lock: Lock, prefix: Path, base: BasePython | None) -> None:
        self._lock, self._prefix, self._base = lock, prefix, base
        self.python = prefix / "bin" / "python"

    def check_base(self) -> None:
        if self._lock.python_source == "conda":
            return
        there = self._base.version if self._base else "none"
        if there.split(".")[:2] != self._lock.python_version.split(".")[:2]:
            raise BuildError(
                "make a local environment",
                at=str(self._prefix),
                reason=f"it needs Python {self._lock.python_xy} of this machine, and there is {there}",
                remedy="ask for a Python that is here, or for a conda package, which brings its own Python",
            )

    def is_whole(self) -> bool:
        """Return whether everything is there; a base interpreter that has gone since leaves a link to nothing."""
        return self.python.exists() and read_if_there(self._prefix / _MARKER) == self._marker

    def make(
        self, installer: PackageInstaller, target: InstallTarget, progress: ImageProgress, stop: Cancellation
    ) -> None:
        """Make it anew, the marker last."""
        with storage_errors("clear what was left half-made", self._prefix):
            if self._prefix.exists():
                shutil.rmtree(self._prefix)
        if self._base is not None:
            write_tree(virtualenv_entries(self._base, target), self._prefix)
        progress.add_total(sum(package.size_bytes for package in self._lock.packages))
        advance, packages = progress.advance, self._lock.packages
        with PreparedPackages(packages, installer, advance=advance, check=stop.check) as prepared:
            for package, entries in prepared:
                progress.state(f"installing {package.name}")
                write_tree(_sources(entries, stop), self._prefix)
        write_atomically(self._prefix / _MARKER, self._marker)

    @property
    def _marker(self) -> bytes:
        facts = {
            "format": _FORMAT,
            "lock": self._lock.content_id,
            "prefix": str(self._prefix),
            "base": self._base.path if self._base else None,
        }
        return json.dumps(facts, sort_keys=True).encode()


def _sources(entries: Iterable[Entry], cancellation: Cancellation) -> Iterator[Entry]:
    """Yield all but bytecode that a package brings: it would outlive a source that a later package replaces."""
    for entry in entries:
        cancellation.check()
        if "/__pycache__/" not in f"/{entry.path}":
            yield entry


@contextlib.contextmanager
def _exclusive(path: Path, progress: ImageProgress) -> Iterator[None]:
    """Keep other threads and processes out. The file stays: removing it would let two of them in."""
    with storage_errors("lock a local environment", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.state("waiting for another process that makes the same environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
