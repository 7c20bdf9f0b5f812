"""What the program of a build stage imports beside the standard library, installed beside it."""

from __future__ import annotations

import contextlib
import platform
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.canonical import content_id
from prebuilt.core.errors import BuildError, InvalidValueError, PackageError
from prebuilt.core.lock import Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.storage import storage_errors
from prebuilt.lock.fetch import Downloader, PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.stage.order import PACKAGES, TOOLS, StageOrder

_AT_ONCE = 4
BUILD_IMAGE = "METAFLOW_PREBUILT_BUILD_IMAGE"
"""The setting that names what build stages run in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFolder:
    """The folder of a build stage that the program is in, with what came along."""

    path: Path
    downloader: Downloader

    def ensure_tools(self, order: StageOrder, say: Callable[[str], None]) -> Path:
        """Return the folder from which this machine's tools are imported; they are installed unless they are there.

        Raises:
            BuildError: There are none for this machine.
            FetchError: One could not be downloaded.
            DigestMismatchError: One is not what was locked.
            StorageError: The disk is full.
        """
        wheels = _fitting(order)
        folder = self.path / TOOLS / f"installed-{content_id([wheel.sha256 for wheel in wheels])[:16]}"
        if folder.is_dir():
            return folder
        with (
            storage_errors("install the tools of a build stage", folder.parent),
            self.files(TOOLS) as files,
            tempfile.TemporaryDirectory(dir=self._made(folder.parent)) as scratch,
            ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tools") as pool,
        ):
            partial = Path(scratch, "installed")
            partial.mkdir()
            for wheel, _ in zip(wheels, pool.map(lambda wheel: _install(wheel, files, partial), wheels), strict=True):
                say(f"tool {wheel.name} {wheel.version}")
            partial.rename(folder)
        return folder

    @contextlib.contextmanager
    def files(self, brought: str = PACKAGES) -> Iterator[PackageFiles]:
        """Give the source of packages: those of the folder `brought`, and else by download. Nothing stays of it."""
        with (
            storage_errors("work in a build stage", self.path),
            tempfile.TemporaryDirectory(prefix="downloads-", dir=self.path) as scratch,
            PackageFiles(
                Settings({}, {}),
                IndexConfig(home=self.path),
                Path(scratch),
                brought=self.path / brought,
                downloader=self.downloader,
            ) as files,
        ):
            yield files

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _fitting(order: StageOrder) -> tuple[Wheel, ...]:
    """Return the tools for this machine and this Python."""
    xy = ".".join(platform.python_version_tuple()[:2])
    if (platform.python_implementation(), xy) != ("CPython", order.python):
        raise _unfit(f"it has to have CPython {order.python}, and this is {platform.python_implementation()} {xy}")
    libc = platform.libc_ver()[0]
    if libc != "glibc":
        raise _unfit(f"it has to have the GNU C library, and this one has {libc or 'another'}")
    try:
        here = Platform.host()
    except InvalidValueError as error:
        raise _unfit(f"nothing is made for {platform.machine()}") from error
    if here not in order.tools:
        known = ", ".join(map(str, order.tools))
        raise BuildError(
            "run in a build stage",
            reason=f"the package index had tools for {known} only, and this machine is {here}",
            remedy="build on another machine",
        )
    return order.tools[here]


def _unfit(reason: str) -> BuildError:
    return BuildError("run in a build stage", reason=reason, remedy=f"set {BUILD_IMAGE} to an image that fits")


def _install(wheel: Wheel, files: PackageFiles, folder: Path) -> None:
    """Unpack a wheel; the tools are known, and have neither scripts nor data that would belong elsewhere."""
    with files.get(wheel) as path, storage_errors(f"unpack {wheel.filename}", folder):
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except zipfile.BadZipFile as error:
            raise PackageError(f"unpack {wheel.filename}", reason=f"it is damaged: {error}") from error
