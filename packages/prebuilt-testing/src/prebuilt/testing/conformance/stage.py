"""What the suite's Dockerfiles are built with: a program of a few lines, and packages that all travel in the context."""

from __future__ import annotations

import contextlib
import hashlib
import io
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.dockerfile import PROGRAM, BuildMaterials, MaterialsSource
from prebuilt.core.errors import DigestMismatchError
from prebuilt.core.lock import LockedPackage
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import ImageSpec
from prebuilt.core.tree import BytesContent

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteStage:
    """Gathers wheels of the suite's index. A build stage with them reaches no network and installs nothing.

    Attributes:
        program: What build stages run: source of Python, by default what unpacks the wheels.
    """

    program: str = Path(__file__).with_name("stage_program.py").read_text(encoding="utf-8")

    @contextlib.contextmanager
    def gather(
        self, spec: ImageSpec, progress: ImageProgress, *, check: Callable[[], None]
    ) -> Iterator[BuildMaterials]:
        """Give the program, and the packages of `spec`.

        Raises:
            DigestMismatchError: A package is not what the lock says.
        """
        progress.state("gathering")
        packages = {}
        for package in spec.lock.packages:
            check()
            packages[package.sha256] = BytesContent(_fetched(package))
        check()
        yield BuildMaterials(files={PROGRAM: BytesContent(_archived(self.program))}, packages=packages)


def _fetched(package: LockedPackage) -> bytes:
    with urllib.request.urlopen(package.url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the suite's own server
        data: bytes = answer.read()
    digest = hashlib.sha256(data).hexdigest()
    if digest != package.sha256:
        raise DigestMismatchError(f"fetch {package.name}", at=package.url, expected=package.sha256, actual=digest)
    return data


def _archived(program: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", (1980, 1, 1, 0, 0, 0)), program)
    return buffer.getvalue()


_: type[MaterialsSource] = SuiteStage
