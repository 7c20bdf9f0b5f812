"""Pythons of a conda channel, to compile bytecode with where this machine has no Python of that version."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import BuildError, ResolveError
from prebuilt.core.lock import Lock
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.interpreter import is_python
from prebuilt.lock.materialise import materialise

if TYPE_CHECKING:
    from prebuilt.core.build_service import Interpreters


@dataclass(frozen=True, kw_only=True)
class CondaInterpreters:
    """Pythons for this machine. Concurrent calls are fine.

    What is resolved once is kept with the locks, what is made once stays in the cache.

    Attributes:
        settings: The cache folder, and how channels are reached.
        locks: Resolves them, for this machine's platform.
        channels: Where they come from, highest priority first.
    """

    settings: Settings
    locks: Locks
    channels: tuple[str, ...]

    def can_get(self, python_xy: str, *, check: Callable[[], None] = lambda: None) -> bool:
        """Return whether the channels have Python X.Y for this machine. Nothing is downloaded; why not is told to the user."""
        try:
            self._lock(python_xy, check)
        except ResolveError as error:
            self.locks.progress.note(
                f"prebuilt: images with Python {python_xy} get no bytecode: this machine has no such Python (`uv python install"
                f" {python_xy}` gets one), and {error}"
            )
            return False
        return True

    def get(self, python_xy: str, progress: ImageProgress, cancellation: Cancellation) -> Path:
        """Return the path of a Python X.Y, which is downloaded if it is not in the cache.

        Raises:
            BuildError: It does not run here.
            ResolveError: The channels do not have it.
            FetchError: It could not be downloaded.
            StorageError: The disk is full or not writable.
        """
        lock, cache = self._lock(python_xy, cancellation.check), cache_dir(self.settings)
        with PackageFiles(self.settings, IndexConfig.load(self.settings), cache) as files:
            python = materialise(
                lock,
                cache / "interpreters" / lock.content_id,
                files=files,
                base=None,
                work_dir=cache / "work",
                progress=progress,
                cancellation=cancellation,
            )
        if not is_python(python, python_xy):
            raise BuildError(
                f"compile bytecode for Python {python_xy}",
                at=str(python),
                reason="conda's Python does not run on this machine",
                remedy=f"install one, for example with `uv python install {python_xy}`",
            )
        return python

    def _lock(self, xy: str, check: Callable[[], None]) -> Lock:
        library, version = platform.libc_ver()
        here = Target(platform=Platform.host(), glibc=version if library == "glibc" else None)
        return self.locks.get(Requirements(python=xy, target=here, channels=self.channels), check=check)


if TYPE_CHECKING:
    _: type[Interpreters] = CondaInterpreters
