"""Environments on this machine, for steps that run here."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.canonical import content_id
from prebuilt.core.lock import Lock
from prebuilt.core.locks import Locks
from prebuilt.core.progress import Progress
from prebuilt.core.requirements import Requirements
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BasePython
from prebuilt.core.storage import cache_dir
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.installer import link_scripts_setting
from prebuilt.lock.materialise import materialise


@dataclass(frozen=True, kw_only=True)
class LocalEnvironments:
    """Environments below the cache folder, one for each lock; they stay for the next run."""

    settings: Settings
    locks: Locks
    progress: Progress

    def ensure(self, requirements: Requirements, *, title: str) -> Path:
        """Return the interpreter of an environment that holds what `requirements` resolve to; `title` names its steps.

        Raises:
            ResolveError: There is no solution.
            BuildError: It wants an interpreter of this machine that there is not.
            FetchError: A package could not be downloaded.
            StorageError: The disk is full or not writable.
        """
        progress = self.progress.image(title)
        cache = cache_dir(self.settings)
        try:
            lock = self.locks.get(requirements)
            base = _host_python()
            with PackageFiles(self.settings, IndexConfig.load(self.settings), cache) as files:
                interpreter = materialise(
                    lock,
                    cache / "envs" / _name(lock, base),
                    files=files,
                    base=base,
                    work_dir=cache / "work",
                    progress=progress,
                    link_scripts=link_scripts_setting(self.settings),
                )
        except BaseException as error:
            progress.failed(str(error) or "stopped")
            raise
        progress.done(f"{len(lock.packages)} packages, locked {lock.resolved_at:%Y-%m-%d}: environment is there")
        return interpreter


def _host_python() -> BasePython:
    """Return the interpreter behind this one, which may be that of a virtual environment."""
    path = getattr(sys, "_base_executable", None) or sys.executable
    return BasePython(path=path, version=platform.python_version())


def _name(lock: Lock, base: BasePython) -> str:
    """Return the folder's name: other locks, and other interpreters to build on, have other environments."""
    return content_id({"lock": lock.content_id, "base": base.path if lock.python_source == "base" else None})
