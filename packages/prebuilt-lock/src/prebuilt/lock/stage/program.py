"""The program of a build stage as one file: the sources of this release, the same bytes wherever they are installed."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import prebuilt.core
import prebuilt.lock

_PACKAGES = {"prebuilt/core": prebuilt.core.__file__, "prebuilt/lock": prebuilt.lock.__file__}
_BOOTSTRAP = "prebuilt/lock/stage/bootstrap.py"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can state
_MODE = 0o100644 << 16
_MADE_ON_UNIX = 3


@functools.cache
def program_bytes() -> bytes:
    """Return the program: a zip archive that Python runs. Stored, since releases of zlib pack to different bytes."""
    sources = dict(_sources())
    members = {"__main__.py": sources[_BOOTSTRAP], **sources}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as program:
        for path, source in sorted(members.items()):
            info = zipfile.ZipInfo(path, _TIME)
            info.create_system, info.external_attr = _MADE_ON_UNIX, _MODE
            program.writestr(info, source)
    return archive.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    for package, init in _PACKAGES.items():
        folder = Path(init).parent
        for path in folder.rglob("*.py"):
            yield f"{package}/{path.relative_to(folder).as_posix()}", path.read_bytes()
