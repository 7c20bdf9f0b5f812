"""What a target is in the words of uv, of wheel tags and of environment markers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms

from prebuilt.core.errors import ResolveError
from prebuilt.core.requirements import Target
from prebuilt.lock.wheel_name import parse_wheel_name

UNKNOWN_GLIBC = "2.17"
"""Assumed where a target does not say: the oldest that wheels and conda packages are still made for."""

MACOS = (13, 0)
"""Assumed version of macOS; uv's own assumption.

Source: https://docs.astral.sh/uv/reference/cli/#uv-pip-compile--python-platform
"""

_UV_GLIBC_MINORS = (17, 28, *range(31, 41))  # what uv has a platform name for
_OLDEST_GLIBC_MINOR = {"x86_64": 5, "aarch64": 17}
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # PEP 600


def glibc_of(target: Target) -> tuple[int, int]:
    """Return the target's glibc version; the assumed one where it does not say."""
    major, _, rest = (target.glibc or UNKNOWN_GLIBC).partition(".")
    return int(major), int(rest.partition(".")[0] or 0)


@dataclass(frozen=True, kw_only=True)
class PythonTarget:
    """A target together with the interpreter that will run on it.

    Attributes:
        target: What the environment will run on.
        python_version: Full version of its CPython: ``3.11.7``.
    """

    target: Target
    python_version: str

    def __str__(self) -> str:
        """Return ``linux/amd64 with glibc 2.36 and Python 3.11.7``."""
        glibc = f" with glibc {'.'.join(map(str, glibc_of(self.target)))} and" if self._is_linux else " with"
        return f"{self.target.platform}{glibc} Python {self.python_version}"

    @property
    def _is_linux(self) -> bool:
        return self.target.platform.os == "linux"

    @property
    def xy(self) -> tuple[int, int]:
        """The interpreter's version without its patch release."""
        major, minor = self.python_version.split(".")[:2]
        return int(major), int(minor)

    @property
    def uv_platform(self) -> str:
        """The nearest ``--python-platform`` of uv that is not newer than the target.

        Raises:
            ResolveError: The target's glibc is older than any that uv knows.
        """
        machine = self.target.platform.machine
        if not self._is_linux:
            return f"{'aarch64' if machine == 'arm64' else machine}-apple-darwin"
        glibc = glibc_of(self.target)
        fitting = [minor for minor in _UV_GLIBC_MINORS if (2, minor) <= glibc]
        if not fitting:
            raise ResolveError(
                f"resolve for {self}",
                reason=f"wheels are made for glibc {UNKNOWN_GLIBC} or newer",
                remedy="use a newer base image",
            )
        return f"{machine}-manylinux_2_{fitting[-1]}"

    @cached_property
    def tags(self) -> dict[Tag, int]:
        """Wheel tags that the target runs, each with its rank; 0 is best. Musl wheels are never among them."""
        interpreter = f"cp{self.xy[0]}{self.xy[1]}"
        platforms = list(self._platforms())
        ordered = [
            *cpython_tags(self.xy, abis=[interpreter], platforms=platforms),
            *compatible_tags(self.xy, interpreter=interpreter, platforms=platforms),
        ]
        return {tag: rank for rank, tag in reversed(list(enumerate(ordered)))}

    def _platforms(self) -> Iterator[str]:
        machine = self.target.platform.machine
        if not self._is_linux:
            yield from mac_platforms(MACOS, machine)
            return
        major, newest = glibc_of(self.target)
        for minor in range(newest, _OLDEST_GLIBC_MINOR[machine] - 1, -1):
            yield f"manylinux_{major}_{minor}_{machine}"
            if minor in _LEGACY:
                yield f"{_LEGACY[minor]}_{machine}"
        yield f"linux_{machine}"

    def rank(self, filename: str) -> tuple[int, int] | None:
        """Return how well the wheel of that name fits, lower is better; None if it does not run on the target."""
        parts = parse_wheel_name(filename)
        ranks = [self.tags[tag] for tag in parts.tags if tag in self.tags]
        return (min(ranks), -(parts.build[0] if parts.build else 0)) if ranks else None

    def fulfils(self, marker: str | None) -> bool:
        """Return whether an environment marker holds on the target; none always does."""
        return marker is None or Marker(marker).evaluate(self._marker_environment)

    @cached_property
    def _marker_environment(self) -> dict[str, str | set[str]]:
        """Every variable of the specification, so that nothing of the host gets in.

        Source: https://packaging.python.org/en/latest/specifications/dependency-specifiers/#environment-markers
        """
        return {
            "python_version": f"{self.xy[0]}.{self.xy[1]}",
            "python_full_version": self.python_version,
            "os_name": "posix",
            "sys_platform": self.target.platform.os,
            "platform_machine": self.target.platform.machine,
            "platform_system": "Linux" if self._is_linux else "Darwin",
            "platform_release": "",
            "platform_version": "",
            "platform_python_implementation": "CPython",
            "implementation_name": "cpython",
            "implementation_version": self.python_version,
            "extra": "",
        }
