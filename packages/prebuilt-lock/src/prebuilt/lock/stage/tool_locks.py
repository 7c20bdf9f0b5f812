"""Which wheels the program of a build stage needs: as installed here, resolved once for every machine that may build."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from prebuilt.core.errors import ResolveError
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.lock.download import Check

_GLIBC = {"linux/amd64": "2.17", "linux/arm64": "2.28"}  # the oldest that there are wheels of the tools for
_NEEDED_BY = "linux/amd64"  # where most builds run: without its tools there is no build

_FOR_WHEELS, _FOR_CONDA = "isal", "py-rattler"


@dataclass(frozen=True, kw_only=True)
class ToolLocks:
    """The tools of build stages. Concurrent calls are fine.

    Attributes:
        locks: Resolves them, and keeps what they resolved to.
        note: Told, in one line, of a platform that builds cannot run on.
    """

    locks: Locks
    note: Callable[[str], None] = lambda _: None
    _kept: dict[str, tuple[Wheel, ...] | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, lock: Lock, *, check: Check = lambda: None) -> Mapping[Platform, tuple[Wheel, ...]]:
        """Return the tools that make the layers of `lock`, by what the build machine may be; `check` raises to stop.

        Raises:
            ResolveError: The package index does not have them.
        """
        names = [_FOR_WHEELS] + [_FOR_CONDA] * any(package.kind == "conda" for package in lock.packages)
        found = {Platform.parse(name): self._wheels(lock.python_xy, name, names, check) for name in _GLIBC}
        return {platform: wheels for platform, wheels in found.items() if wheels is not None}

    def _wheels(self, xy: str, platform: str, names: list[str], check: Check) -> tuple[Wheel, ...] | None:
        requirements = Requirements(
            python=xy,
            target=Target(platform=Platform.parse(platform), glibc=_GLIBC[platform], base_python=f"{xy}.0"),
            pypi={name: version(name) for name in names},
        )
        with self._lock:
            key = requirements.req_id
            if key not in self._kept:
                self._kept[key] = self._resolved(requirements, check)
            return self._kept[key]

    def _resolved(self, requirements: Requirements, check: Check) -> tuple[Wheel, ...] | None:
        platform = requirements.target.platform
        try:
            lock = self.locks.get(requirements, check=check)
        except ResolveError as error:
            if str(platform) != _NEEDED_BY:
                self.note(f"prebuilt: builds can run on {_NEEDED_BY} only; {error}")
                return None
            raise
        return tuple(package for package in lock.packages if isinstance(package, Wheel))
