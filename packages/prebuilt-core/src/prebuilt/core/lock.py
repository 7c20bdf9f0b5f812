"""What requirements resolved to: every file by URL and hash."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, TypeAlias

from prebuilt.core.canonical import content_id
from prebuilt.core.errors import InvalidValueError
from prebuilt.core.requirements import PythonSource, Target

LOCK_FORMAT = 1

Role = Literal["python", "runtime", "user"]
"""Why a package is there: conda's Python and what it needs; Metaflow's own needs and theirs; everything else."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _check_package(name: str, sha256: str, size_bytes: int) -> None:
    if not _SHA256.fullmatch(sha256):
        raise InvalidValueError(f"the sha256 of {name}", sha256, reason="expected 64 lower-case hex digits")
    if size_bytes <= 0:
        raise InvalidValueError(f"the size of {name}", size_bytes, reason="expected a number of bytes above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaPackage:
    """One conda package file (``.conda`` or ``.tar.bz2``).

    Attributes:
        url: Where the file is, without credentials.
        sha256: Of the file, 64 hex digits.
        size_bytes: Of the file.
        noarch: ``python``, ``generic``, or None for a package of one platform.
        depends: Match specs of what it needs, as the channel states them.
        constrains: Match specs of what it refuses.
        python_site_packages_path: Where a Python package says that site-packages is (CEP 17); None elsewhere.
    """

    name: str
    version: str
    build: str
    build_number: int
    subdir: str
    url: str
    sha256: str
    size_bytes: int
    role: Role
    noarch: Literal["python", "generic"] | None = None
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    python_site_packages_path: str | None = None
    kind: Literal["conda"] = "conda"

    def __post_init__(self) -> None:
        """Check hash and size."""
        _check_package(self.name, self.sha256, self.size_bytes)

    @property
    def filename(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel file.

    Attributes:
        name: Normalised name (PEP 503).
        filename: Name of the file, which holds its tags.
        url: Where the file is, without credentials; empty for one that was built, or lies, on the deploying machine and is kept
            in its cache by hash, and beside the lock.
        sha256: Of the file, 64 hex digits.
        size_bytes: Of the file.
    """

    name: str
    version: str
    filename: str
    url: str
    sha256: str
    size_bytes: int
    role: Role
    kind: Literal["wheel"] = "wheel"

    def __post_init__(self) -> None:
        """Check hash and size."""
        _check_package(self.name, self.sha256, self.size_bytes)


LockedPackage: TypeAlias = CondaPackage | Wheel
_KINDS: dict[str, Callable[..., LockedPackage]] = {"conda": CondaPackage, "wheel": Wheel}


def read_package(data: Mapping[str, Any]) -> LockedPackage:
    """Return the package whose fields are `data`; the inverse of :func:`dataclasses.asdict`.

    Raises:
        KeyError, TypeError: A field is missing, or unknown.
        InvalidValueError: A field is malformed.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return _KINDS[data["kind"]](**values)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What requirements resolved to.

    Attributes:
        req_id: Identity of the requirements.
        target: What it was resolved for.
        python_version: Full version of the environment's interpreter, ``3.11.7``.
        python_source: Where that interpreter comes from.
        packages: Conda packages before wheels, each by name. No name twice within a kind.
        resolved_at: When; aware.
        resolver: By what: ``py-rattler 0.28.0, uv 0.13.9``.
    """

    req_id: str
    target: Target
    python_version: str
    python_source: PythonSource
    packages: tuple[LockedPackage, ...]
    resolved_at: datetime
    resolver: str

    def __post_init__(self) -> None:
        """Sort the packages; refuse doubles and a time without a zone."""
        ordered = tuple(sorted(self.packages, key=lambda package: (package.kind, package.name)))
        object.__setattr__(self, "packages", ordered)
        keys = [(package.kind, package.name) for package in ordered]
        if len(set(keys)) != len(keys):
            doubles = sorted({f"{kind} {name}" for kind, name in keys if keys.count((kind, name)) > 1})
            raise InvalidValueError("a lock", doubles, reason="each package may be there once")
        if self.resolved_at.tzinfo is None:
            raise InvalidValueError("a lock's time", self.resolved_at, reason="it has no time zone")

    @property
    def python_xy(self) -> str:
        """The interpreter's version without its patch release: ``3.11``."""
        return ".".join(self.python_version.split(".")[:2])

    @property
    def site_packages(self) -> str:
        """Where importable packages go, relative to the environment: what a conda Python states (CEP 17), or the usual."""
        stated = (package.python_site_packages_path for package in self.packages if isinstance(package, CondaPackage))
        return next(filter(None, stated), f"lib/python{self.python_xy}/site-packages")

    @cached_property
    def content_id(self) -> str:
        """Identity of what was resolved, whenever and by whatever it was: 40 hex digits."""
        data = self._to_json()
        del data["resolved_at"], data["resolver"], data["req_id"]
        return content_id(data)

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": LOCK_FORMAT,
            "req_id": self.req_id,
            "target": self.target.to_json(),
            "python_version": self.python_version,
            "python_source": self.python_source,
            "resolved_at": self.resolved_at.isoformat(),
            "resolver": self.resolver,
            "packages": [asdict(package) for package in self.packages],
        }

    def to_bytes(self) -> bytes:
        """Return the lock as a file: the same lock, the same bytes. The inverse of :meth:`parse`."""
        return json.dumps(self._to_json(), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Lock:
        """Read what :meth:`to_bytes` wrote."""
        try:
            raw = json.loads(data)
            if raw["format"] != LOCK_FORMAT:
                raise InvalidValueError("a lock", raw["format"], reason=f"its format is not {LOCK_FORMAT}")
            return cls(
                req_id=raw["req_id"],
                target=Target.from_json(raw["target"]),
                python_version=raw["python_version"],
                python_source=raw["python_source"],
                packages=tuple(read_package(package) for package in raw["packages"]),
                resolved_at=datetime.fromisoformat(raw["resolved_at"]),
                resolver=raw["resolver"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidValueError):
                raise
            raise InvalidValueError("a lock", data[:80], reason=f"{type(error).__name__} {error}") from error
