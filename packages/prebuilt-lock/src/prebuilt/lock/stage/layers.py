"""The files of layers, each layer in a folder of its own: the same files, modes and times as the native builder's layers have."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import BuildError, InvalidValueError
from prebuilt.core.layer_source import LayerSource
from prebuilt.core.storage import storage_errors
from prebuilt.core.tree import DirectoryEntry, Entry
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.installer import LinkScripts, PackageInstaller
from prebuilt.lock.prepared import PreparedPackages
from prebuilt.lock.stage.tools import BUILD_IMAGE
from prebuilt.lock.tree_writer import write_tree
from prebuilt.lock.virtualenv import virtualenv_entries

_AT_ONCE = 3  # layers; each has packages on their way
_TIME = (0, 0)  # of every file, as in the native builder's layers: a time of the day would make each layer unique


@dataclass(frozen=True, kw_only=True)
class LayerFolders:
    """Makes the layers that ``layers/`` of a folder describes, below its ``made/``.

    Attributes:
        folder: With ``layers``; ``made`` comes about.
        files: Where packages come from.
        link_scripts: What a conda package with link scripts causes.
        say: Told, in one line each, what is done. Any thread may call it.
    """

    folder: Path
    files: PackageFiles
    link_scripts: LinkScripts
    say: Callable[[str], None]
    cancellation: Cancellation = field(default_factory=Cancellation)

    def missing(self) -> list[LayerSource]:
        """Return the layers that are not made yet.

        Raises:
            InvalidValueError: A description is damaged, or of another format.
        """
        sources = (LayerSource.parse(path.read_bytes()) for path in sorted((self.folder / "layers").glob("*.json")))
        return [source for source in sources if not (self._made / source.key).is_dir()]

    def make(self, sources: Sequence[LayerSource]) -> None:
        """Make `sources`, several at once; each is whole or not there.

        Raises:
            BuildError: This Python cannot compile their bytecode.
            FetchError: A package could not be downloaded.
            DigestMismatchError: One is not what was locked.
            PackageError: One cannot be installed.
            InvalidValueError: Packages of one layer do not make a tree.
            StorageError: The disk is full.
        """
        with (
            storage_errors("make layers", self.folder),
            tempfile.TemporaryDirectory(prefix="work-", dir=self.folder) as work,
            _compilers(sources) as compiler,
            ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="layer") as pool,
        ):
            self._made.mkdir(exist_ok=True)
            making = [pool.submit(self._make, source, compiler, Path(work)) for source in sources]
            try:
                done, _ = wait(making, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self.cancellation.cancel()
                for future in making:
                    future.cancel()
                raise

    @property
    def _made(self) -> Path:
        return self.folder / "made"

    def _make(self, source: LayerSource, compiler: BytecodeCompiler | None, work: Path) -> None:
        self.cancellation.check()
        partial = work / source.key
        partial.mkdir()
        target = _target(source)
        if source.kind == "interpreter":
            assert source.base_python is not None  # noqa: S101 - the plan has checked it
            write_tree(virtualenv_entries(source.base_python, target), partial)
        else:
            self._install(source, target, compiler if source.bytecode else None, work, partial)
        _seal(partial)
        partial.rename(self._made / source.key)
        self.say(f"layer {source.key[:12]} is made")

    def _install(
        self, source: LayerSource, target: InstallTarget, compiler: BytecodeCompiler | None, work: Path, folder: Path
    ) -> None:
        installer = PackageInstaller(
            self.files,
            target,
            compiler=compiler,
            work_dir=work / "packages",
            link_scripts=self.link_scripts,
            note=self.say,
        )
        shape = _Shape()
        with PreparedPackages(source.packages, installer, check=self.cancellation.check) as prepared:
            for package, entries in prepared:
                shape.add(entries)
                write_tree(self._checked(entries), folder)
                self.say(f"{package.name} {package.version}")

    def _checked(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self.cancellation.check()
            yield entry


class _Shape:
    """Which paths of a layer are folders: a path that is one, and also not one, would be written through a link, or not at all."""

    def __init__(self) -> None:
        self._folders: set[str] = set()
        self._others: set[str] = set()

    def add(self, entries: Sequence[Entry]) -> None:
        """Take the entries of one more package.

        Raises:
            InvalidValueError: They do not go together with what is there.
        """
        for entry in entries:
            if not isinstance(entry, DirectoryEntry):
                self._others.add(entry.path)
            folder = entry.path if isinstance(entry, DirectoryEntry) else entry.path.rpartition("/")[0]
            while folder and folder not in self._folders:  # one that is there has its parents there
                self._folders.add(folder)
                folder = folder.rpartition("/")[0]
        clashes = self._folders & self._others
        if clashes:
            raise InvalidValueError("a tree of files", min(clashes), reason="it is a folder, and also not one")


def _target(source: LayerSource) -> InstallTarget:
    return InstallTarget(
        prefix=source.prefix,
        root=source.prefix.lstrip("/"),
        python_version=source.python_version,
        platform=source.platform,
        site_packages=source.site_packages,
    )


@contextlib.contextmanager
def _compilers(sources: Sequence[LayerSource]) -> Iterator[BytecodeCompiler | None]:
    """Give what compiles the bytecode of `sources`: this Python, if it is theirs; None where no layer has any."""
    here = "{}.{}".format(*sys.version_info)
    wanted = {".".join(source.python_version.split(".")[:2]) for source in sources if source.bytecode}
    for xy in sorted(wanted - {here}):
        raise BuildError(
            f"compile bytecode for Python {xy}",
            at=sys.executable,
            reason=f"it is Python {here}",
            remedy=f"set {BUILD_IMAGE} to an image with Python {xy}",
        )
    if not wanted:
        yield None
        return
    with BytecodeCompiler(Path(sys.executable), here) as compiler:
        yield compiler


def _seal(folder: Path) -> None:
    """Give every folder the mode, and everything the time, that it has in a layer. Files got their modes as they were written."""
    for path, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            os.utime(Path(path, name), _TIME, follow_symlinks=False)
        Path(path).chmod(0o755)
    os.utime(folder, _TIME)
