"""One locked package as the files that it becomes: the same for images, for local environments, and on every machine."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

from prebuilt.core.errors import PackageError
from prebuilt.core.lock import CondaPackage, LockedPackage
from prebuilt.core.settings import Settings
from prebuilt.core.storage import storage_errors
from prebuilt.core.tree import Entry
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.conda_package import conda_entries, link_scripts
from prebuilt.lock.download import Advance, Check
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.package_bytecode import with_bytecode
from prebuilt.lock.wheel import wheel_entries
from prebuilt.lock.zip_archive import ZipArchive

LinkScripts = Literal["warn", "error"]


def link_scripts_setting(settings: Settings) -> LinkScripts:
    """Return ``METAFLOW_PREBUILT_LINK_SCRIPTS``: what a conda package with link scripts causes; a note unless set."""
    return cast("LinkScripts", settings.choice("PREBUILT_LINK_SCRIPTS", ("warn", "error"), default="warn"))


class PackageInstaller:
    """Turns locked packages into the files that they become. Concurrent calls are fine, each from a thread of its own."""

    def __init__(
        self,
        files: PackageFiles,
        target: InstallTarget,
        *,
        compiler: BytecodeCompiler | None,
        work_dir: Path,
        link_scripts: LinkScripts = "warn",
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Install for `target`.

        Args:
            files: Where packages come from.
            target: Where files will be.
            compiler: Makes their bytecode; None for none.
            work_dir: Where conda packages are unpacked meanwhile; on the disk of the cache, so that files can be linked.
            link_scripts: Whether a package with link scripts, which are never run, is noted or refused.
            note: Told about those, once for each package.
        """
        self._files, self._target, self._compiler, self._work = files, target, compiler, work_dir
        self._link_scripts, self._note = link_scripts, note
        self._noted: set[str] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def entries(
        self, package: LockedPackage, *, advance: Advance = lambda _: None, check: Check = lambda: None
    ) -> Iterator[list[Entry]]:
        """Give the files of `package`, sorted by path, with bytecode. Their contents can be read inside the context only.

        Args:
            package: Of the lock that the target is of.
            advance: Told the bytes that have come; in all, the package's size.
            check: Called now and then; raises to stop.

        Raises:
            FetchError: It could not be downloaded.
            DigestMismatchError: It is not what was locked.
            PackageError: It cannot be installed.
            StorageError: The disk is full.
        """
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(self._files.get(package, advance=advance, check=check))
            installed: Sequence[Entry]
            if isinstance(package, CondaPackage):
                installed = self._conda(path, package, stack)
            else:
                installed = wheel_entries(stack.enter_context(ZipArchive(path)), package, self._target)
            check()
            yield with_bytecode(installed, self._target, self._compiler)

    def _conda(self, path: Path, package: CondaPackage, stack: contextlib.ExitStack) -> list[Entry]:
        with storage_errors(f"unpack {package.filename}", self._work):
            self._work.mkdir(parents=True, exist_ok=True)
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{package.name}.", dir=self._work))
        entries = conda_entries(path, package, self._target, Path(work))
        scripts = link_scripts(package, entries, self._target)
        if scripts:
            self._report(package, " and ".join(scripts))
        return entries

    def _report(self, package: CondaPackage, scripts: str) -> None:
        if self._link_scripts == "error":
            raise PackageError(
                f"install {package.filename}",
                reason=f"it has a {scripts} script, and link scripts are not run",
                remedy="use another build of it, or set METAFLOW_PREBUILT_LINK_SCRIPTS=warn",
            )
        with self._lock:
            is_new = package.name not in self._noted
            self._noted.add(package.name)
        if is_new:
            self._note(f"prebuilt: the {scripts} script of conda package {package.name} is not run")
