"""The `python` package of a channel: the machine's own interpreter, or one that only looks like it."""

from __future__ import annotations

from collections.abc import Iterator

from prebuilt.core.errors import BaseImageError
from prebuilt.core.tree import BytesContent, Entry, FileEntry, PathContent, SymlinkEntry
from prebuilt.testing.conda_package import PREFIX_MARK, CondaPackageSpec, text_file
from prebuilt.testing.interpreter import InstalledFile, Interpreter
from prebuilt.testing.machine import needed_libraries

# Appended to the interpreter: a prefix in a binary that runs, as conda's own has it. Loaders stop reading where ELF says.
_PREFIX_IN_BINARY = f"\0prefix={PREFIX_MARK}\0".encode()


def python_package(interpreter: Interpreter) -> CondaPackageSpec:
    """Return a real Python that runs from any prefix: ``linux-64``, of the interpreter's own version.

    It holds the interpreter, its ``libpython`` and its standard library. The libraries that extension modules need
    (OpenSSL, SQLite, …) are not in it but taken from where it runs: :func:`~prebuilt.testing.base_image.make_base_image` has them.
    """
    return CondaPackageSpec(
        name="python",
        version=interpreter.version,
        build=f"0_cp{interpreter.xy.replace('.', '')}",
        files=tuple(_python_files(interpreter)),
        depends=("__glibc >=2.17",),
    )


def dummy_python_package(version: str, subdir: str) -> CondaPackageSpec:
    """Return what has Python's structure and no Python in it: for solving, and for layers of platforms that cannot run here."""
    xy = ".".join(version.split(".")[:2])
    return CondaPackageSpec(
        name="python",
        version=version,
        build=f"0_cp{xy.replace('.', '')}",
        subdir=subdir,
        files=(
            text_file(f"bin/python{xy}", f"#!/bin/sh\n# {PREFIX_MARK}\necho Python {version}\n", executable=True),
            *_links(xy),
            text_file(f"lib/python{xy}/os.py", "# not the real one\n"),
            text_file(f"lib/python{xy}/site-packages/README.txt", "What is installed goes here.\n"),
        ),
        depends=("__glibc >=2.17",),
    )


def _links(xy: str) -> Iterator[Entry]:
    yield SymlinkEntry(path="bin/python3", target=f"python{xy}")
    yield SymlinkEntry(path="bin/python", target="python3")


def _python_files(interpreter: Interpreter) -> Iterator[Entry]:
    xy, prefix = interpreter.xy, interpreter.prefix
    executable = _found_from(interpreter.executable.read_bytes(), interpreter, "$ORIGIN/../lib")
    yield FileEntry(path=f"bin/python{xy}", content=BytesContent(executable + _PREFIX_IN_BINARY), executable=True)
    yield from _links(xy)
    for name, path in needed_libraries([interpreter.executable]).items():
        if name.startswith("libpython"):
            yield FileEntry(path=f"lib/{name}", content=PathContent(path.resolve()), executable=True)
    config = prefix / "bin" / f"python{xy}-config"
    if config.is_file():
        yield _with_mark(InstalledFile(path=f"bin/python{xy}-config", source=config), interpreter)
    for file in interpreter.library_files():
        yield _library_file(file, interpreter)
    yield text_file(f"lib/python{xy}/site-packages/README.txt", "What is installed goes here.\n")
    if b"dist-packages" in (interpreter.library / "site.py").read_bytes():
        # Debian's Python looks for packages elsewhere, unless it is a virtual environment's; this leads it to conda's place.
        yield text_file("lib/python3/dist-packages/conda.pth", f"../../python{xy}/site-packages\n")


def _library_file(file: InstalledFile, interpreter: Interpreter) -> FileEntry:
    if file.source.name.startswith("_sysconfigdata"):
        return _with_mark(file, interpreter)
    if file.source.suffix == ".so":
        up = "/".join([".."] * (file.path.count("/") - 1))
        data = _found_from(file.source.read_bytes(), interpreter, f"$ORIGIN/{up}")
        return FileEntry(path=file.path, content=BytesContent(data), executable=True)
    return FileEntry(path=file.path, content=PathContent(file.source), executable=file.is_executable)


def _with_mark(file: InstalledFile, interpreter: Interpreter) -> FileEntry:
    text = file.source.read_text(encoding="utf-8")
    marked = text.replace(f"{interpreter.prefix}/", f"{PREFIX_MARK}/").replace(
        f"'{interpreter.prefix}'", f"'{PREFIX_MARK}'"
    )
    return text_file(file.path, marked, executable=file.is_executable)


def _found_from(binary: bytes, interpreter: Interpreter, run_path: str) -> bytes:
    """Return `binary` with its library search path, where it is the interpreter's own library folder, replaced in place."""
    old, new = f"\0{interpreter.prefix}/lib\0".encode(), f"\0{run_path}\0".encode()
    if old not in binary:
        return binary
    if len(new) > len(old):
        raise BaseImageError(
            "make a conda package of a Python",
            at=str(interpreter.prefix),
            reason=f"its prefix is too short to be replaced by {run_path}",
            remedy="use a Python that is linked statically",
        )
    return binary.replace(old, new.ljust(len(old), b"\0"))
