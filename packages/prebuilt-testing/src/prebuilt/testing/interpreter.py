"""A Python installation of this machine, as a tree that can be put elsewhere."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prebuilt.core.errors import BaseImageError

_FACTS = """
import json, os, platform, sys, sysconfig
facts = {
    "version": platform.python_version(),
    "prefix": os.path.realpath(sys.base_prefix),
    "library": os.path.realpath(sysconfig.get_path("stdlib")),
    "include": os.path.realpath(sysconfig.get_path("include")),
}
print(json.dumps(facts))
"""

_COMPILE = """
import json, py_compile, sys
for source, compiled, shown in json.load(sys.stdin):
    py_compile.compile(source, compiled, shown, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""

_LEFT_OUT_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "idlelib",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}
_LEFT_OUT_NAMES = ("_tkinter.", "_test", "_ctypes_test.", "_xxtestfuzz.", "xxlimited", "EXTERNALLY-MANAGED")
_HEADERS = ("patchlevel.h", "pyconfig.h")  # what tells an installation's version, and what sysconfig reads


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledFile:
    """A file of an installation: its path below the prefix, and where it lies on this machine."""

    path: str
    source: Path

    @property
    def is_executable(self) -> bool:
        """Whether its owner may run it."""
        return bool(self.source.stat().st_mode & stat.S_IXUSR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python installation.

    Attributes:
        executable: The interpreter itself, no link.
        version: Full version, ``3.11.7``.
        prefix: Below which it is installed: never a virtual environment's.
        library: The folder of the standard library, below `prefix`.
        include: The folder of its C headers; it need not exist.
    """

    executable: Path
    version: str
    prefix: Path
    library: Path
    include: Path

    @classmethod
    def inspect(cls, python: Path | None = None) -> Interpreter:
        """Return the installation behind `python`, or behind the running interpreter; a virtual environment's base.

        Raises:
            BaseImageError: It does not run.
        """
        command = python or Path(sys.executable)
        try:
            printed = subprocess.run([command, "-I", "-c", _FACTS], check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise BaseImageError("ask an interpreter what it is", at=str(command), reason=str(error)) from error
        facts = json.loads(printed)
        prefix, xy = Path(facts["prefix"]), ".".join(facts["version"].split(".")[:2])
        return cls(
            executable=(prefix / "bin" / f"python{xy}").resolve(strict=True),
            version=facts["version"],
            prefix=prefix,
            library=Path(facts["library"]),
            include=Path(facts["include"]),
        )

    @property
    def xy(self) -> str:
        """The version without its patch release: ``3.11``."""
        return ".".join(self.version.split(".")[:2])

    def extension_modules(self) -> list[Path]:
        """Return the compiled modules of :meth:`library_files`."""
        return [file.source for file in self.library_files() if file.source.suffix == ".so"]

    def library_files(self) -> Iterator[InstalledFile]:
        """Yield the standard library and two headers: no tests, no Tk, no bytecode, nothing that was installed later."""
        for source in _walk(self.library):
            yield InstalledFile(path=source.relative_to(self.prefix).as_posix(), source=source)
        for name in _HEADERS:
            if (self.include / name).is_file():
                yield InstalledFile(path=f"include/{self.include.name}/{name}", source=self.include / name)

    def compile_library(self, folder: Path, *, as_if_in: str) -> list[InstalledFile]:
        """Return bytecode of the standard library, written below `folder`; its sources are said to be below `as_if_in`."""
        sources = [file for file in self.library_files() if file.source.suffix == ".py"]
        made = [
            InstalledFile(path=self._bytecode_path(file.path), source=folder / f"{n}.pyc")
            for n, file in enumerate(sources)
        ]
        work = [
            (str(file.source), str(compiled.source), f"{as_if_in}/{file.path}")
            for file, compiled in zip(sources, made, strict=True)
        ]
        command = [str(self.executable), "-I", "-c", _COMPILE]
        subprocess.run(command, check=True, capture_output=True, text=True, input=json.dumps(work))
        return made

    def _bytecode_path(self, path: str) -> str:
        source = PurePosixPath(path)
        return str(source.parent / "__pycache__" / f"{source.stem}.cpython-{self.xy.replace('.', '')}.pyc")


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            # config-3.X-* holds the static library and what is needed to embed Python, tens of MB.
            if path.name not in _LEFT_OUT_FOLDERS and not path.name.startswith("config-"):
                yield from _walk(path)
        elif not path.name.startswith(_LEFT_OUT_NAMES) and path.suffix not in {".a", ".pyc", ".exe"} and path.is_file():
            yield path
