"""Base images made from the machine's own Python, commands and libraries: no root, no network, a second or two.

A real system: a loader, the C library, bash, tar, coreutils, certificates, and Python in ``/usr/local`` as the official images have
it. What is missing of a container's own (``/proc``, ``/dev``, a ``/tmp`` that everybody may write to) is for the engine to mount.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.platforms import Platform
from prebuilt.core.spec import Compression
from prebuilt.core.tree import BytesContent, Entry, FileEntry, PathContent, SymlinkEntry
from prebuilt.oci.layer import WrittenLayer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.repository import Repository
from prebuilt.testing.base_manifest import push_layer, push_manifest, tag_platforms
from prebuilt.testing.interpreter import InstalledFile, Interpreter
from prebuilt.testing.machine import (
    COMMANDS,
    command_entries,
    files_of,
    library_entries,
    system_entries,
)

PREFIX = "usr/local"
"""Where Python is in the images, as in the official ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseContents:
    """What is to be in a base image.

    Attributes:
        python: The interpreter that the image is made of; None for the running one. Of a virtual environment, its base.
        with_python: Whether Python is in the image. The libraries that its extension modules need are there in any case: conda's
            Python of :mod:`prebuilt.testing.conda_python` relies on them.
        with_bash: Whether bash is; ``sh`` is there in any case.
        with_tar: Whether tar and gzip are.
        with_bytecode: Whether the standard library is compiled: a second more here, half a second less at each start there.
        layers: Into how many layers the files are divided.
        compression: Of the layers. All runtimes read gzip.
    """

    python: Path | None = None
    with_python: bool = True
    with_bash: bool = True
    with_tar: bool = True
    with_bytecode: bool = False
    layers: int = 1
    compression: Compression = "gzip"

    def entries(self, interpreter: Interpreter) -> list[Entry]:
        """Return the tree without bytecode, sorted by path."""
        commands = list(command_entries(self._commands()))
        libraries = library_entries([*files_of(commands), interpreter.executable, *interpreter.extension_modules()])
        python = _python_entries(interpreter) if self.with_python else ()
        return sorted((*commands, *libraries, *system_entries(), *python), key=lambda entry: entry.path)

    def _commands(self) -> list[str]:
        return [*COMMANDS, *(["bash"] if self.with_bash else []), *(["gzip", "tar"] if self.with_tar else [])]


def make_base_image(
    folder: Path,
    *,
    tag: str = "base",
    platform: Platform | None = None,
    python: Path | None = None,
    with_python: bool = True,
    with_bash: bool = True,
    with_tar: bool = True,
    with_bytecode: bool = False,
    layers: int = 1,
    compression: Compression = "gzip",
) -> str:
    """Put a base image into the image layout `folder`, which is made if need be; return its reference ``oci:/folder:tag``.

    The same machine gives the same image. `platform` is what the image claims to be for, by default this machine's; what is in it
    is this machine's in any case. Everything else is as in :class:`BaseContents`.

    Raises:
        BaseImageError: The machine has no GNU C library, or lacks a command or the interpreter.
    """
    contents = BaseContents(
        python=python,
        with_python=with_python,
        with_bash=with_bash,
        with_tar=with_tar,
        with_bytecode=with_bytecode,
        layers=layers,
        compression=compression,
    )
    return push_base_image(
        LayoutRepository(folder), tag=tag, platforms=[platform or Platform.host()], contents=contents
    )


def push_base_image(
    repository: Repository,
    *,
    tag: str = "base",
    platforms: Sequence[Platform],
    contents: BaseContents | None = None,
) -> str:
    """Push a base image for one platform, or an index of several that share their layers; return its reference."""
    contents = contents or BaseContents()
    interpreter = Interpreter.inspect(contents.python)
    layers = _push_layers(repository, contents, interpreter)
    version = interpreter.version if contents.with_python else None
    manifests = {one: push_manifest(repository, one, layers, python_version=version) for one in platforms}
    return tag_platforms(repository, tag, manifests)


def _push_layers(repository: Repository, contents: BaseContents, interpreter: Interpreter) -> list[WrittenLayer]:
    with tempfile.TemporaryDirectory(prefix="prebuilt-base-") as scratch:
        entries = contents.entries(interpreter)
        if contents.with_python and contents.with_bytecode:
            compiled = interpreter.compile_library(Path(scratch), as_if_in=f"/{PREFIX}")
            entries += [_relocated(file, interpreter.prefix) for file in compiled]
        size = -(-len(entries) // contents.layers)
        parts = [entries[start : start + size] for start in range(0, len(entries), size)]
        return [
            push_layer(repository, part, scratch=Path(scratch, "layer"), compression=contents.compression)
            for part in parts
        ]


def _python_entries(interpreter: Interpreter) -> Iterator[Entry]:
    name = f"python{interpreter.xy}"
    yield FileEntry(path=f"{PREFIX}/bin/{name}", content=PathContent(interpreter.executable), executable=True)
    yield SymlinkEntry(path=f"{PREFIX}/bin/python3", target=name)
    yield SymlinkEntry(path=f"{PREFIX}/bin/python", target="python3")
    for file in interpreter.library_files():
        yield _relocated(file, interpreter.prefix)


def _relocated(file: InstalledFile, prefix: Path) -> FileEntry:
    if file.source.name.startswith("_sysconfigdata") and file.source.suffix == ".py":
        text = file.source.read_text(encoding="utf-8").replace(str(prefix), f"/{PREFIX}")
        return FileEntry(path=f"{PREFIX}/{file.path}", content=BytesContent(text.encode()))
    return FileEntry(path=f"{PREFIX}/{file.path}", content=PathContent(file.source), executable=file.is_executable)
