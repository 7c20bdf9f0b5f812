"""Wheels that no index serves: built here, or brought by the user as files. Kept by hash."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.errors import ResolveError
from prebuilt.core.lock import Role, Wheel
from prebuilt.core.settings import Settings
from prebuilt.core.storage import atomic_file, cache_dir, storage_errors, write_atomically

_CHUNK = 1 << 20


def wheelhouse(settings: Settings) -> WheelHouse:
    """Return the one of this machine."""
    return WheelHouse(cache_dir(settings) / "wheels")


@dataclass(frozen=True, slots=True)
class WheelHouse:
    """A folder of wheels by their SHA-256. Concurrent use, by threads and by processes, is fine."""

    folder: Path

    def add(self, path: Path, *, role: Role = "user") -> Wheel:
        """Copy the wheel at `path` in and return it, with an empty URL.

        Raises:
            ResolveError: It is not there, or its name is not a wheel's.
            StorageError: It cannot be read or copied.
        """
        # Not above: the build stage of a Dockerfile looks for wheels here too, and has no third-party package.
        from prebuilt.lock.wheel_name import parse_wheel_name

        parts = parse_wheel_name(path.name)
        if not path.is_file():
            raise ResolveError("use a local wheel", at=str(path), reason="there is no such file")
        digest = _sha256(path)
        if self.path(digest, path.name) is None:
            with (
                storage_errors("copy a wheel", path),
                path.open("rb") as source,
                atomic_file(self._place(digest, path.name)) as copy,
            ):
                shutil.copyfileobj(source, copy, _CHUNK)
        return Wheel(
            name=parts.distribution,
            version=str(parts.version),
            filename=path.name,
            url="",
            sha256=digest,
            size_bytes=path.stat().st_size,
            role=role,
        )

    def keep(self, wheel: Wheel, data: bytes) -> None:
        """Keep a wheel that was built, or lay, on another machine; `data` was checked against its hash.

        Raises:
            StorageError: The disk is full or not writable.
        """
        write_atomically(self._place(wheel.sha256, wheel.filename), data)

    def path(self, sha256: str, filename: str) -> Path | None:
        """Return where the wheel of that hash is, or None if it is not here. Its bytes were hashed when it came in, not now."""
        place = self._place(sha256, filename)
        return place if place.is_file() else None

    def _place(self, sha256: str, filename: str) -> Path:
        return self.folder / sha256[:2] / sha256 / filename


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with storage_errors("read a wheel", path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
