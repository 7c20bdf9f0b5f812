"""Which files get bytecode, and what becomes of the bytecode that packages bring."""

from __future__ import annotations

import importlib.util
import py_compile
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.tree import BytesContent, Entry, FileEntry, SymlinkEntry
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.package_bytecode import wants_bytecode, with_bytecode
from prebuilt.lock.tree_writer import write_tree

Read = Callable[[Iterable[Entry], InstallTarget], dict[str, Any]]
MakeFiles = Callable[..., list[FileEntry]]

TAG = sys.implementation.cache_tag


@pytest.fixture(scope="module")
def compiler():
    """Give a compiler of the running Python."""
    with BytecodeCompiler(Path(sys.executable), "{}.{}".format(*sys.version_info), workers=1) as compiler:
        yield compiler


@pytest.fixture
def files(target: InstallTarget):
    """Give a function that makes entries below site-packages."""

    def make(**contents: bytes) -> list[FileEntry]:
        return [
            FileEntry(path=target.in_tree(f"{target.site_packages}/{path}"), content=BytesContent(data))
            for path, data in contents.items()
        ]

    return make


def _names(entries: Iterable[Entry], target: InstallTarget) -> list[str]:
    return [target.in_prefix(entry.path).removeprefix(f"{target.site_packages}/") for entry in entries]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("{site}/pkg/__init__.py", True),
        ("{library}/os.py", True),
        ("{site}/pkg/tests/test_x.py", False),
        ("{library}/test/support/__init__.py", False),
        ("{site}/pkg/testing/asserters.py", True),
        ("{site}/test.py", True),
        ("{site}/pkg/data.txt", False),
        ("bin/tool.py", False),
        ("share/example.py", False),
    ],
)
def test_importable_files_that_are_no_tests_want_bytecode(target: InstallTarget, path: str, *, wanted: bool):
    """The standard library and site-packages do, test suites and what is not imported do not."""
    assert wants_bytecode(path.format(site=target.site_packages, library=target.library), target) == wanted


def test_bytecode_stands_where_python_looks_for_it(
    files: MakeFiles, target: InstallTarget, compiler: BytecodeCompiler, listing: Read
):
    """Each module has one, sorted into its place; links and data have none."""
    link = SymlinkEntry(path=target.in_tree(f"{target.site_packages}/b.py"), target="a.py")
    entries = with_bytecode([*files(**{"a.py": b"x = 1\n", "a.txt": b""}), link], target, compiler)
    assert _names(entries, target) == [f"__pycache__/a.{TAG}.pyc", "a.py", "a.txt", "b.py"]
    assert listing(entries, target)[f"{target.site_packages}/__pycache__/a.{TAG}.pyc"][16:]


def test_python_runs_the_bytecode_and_never_the_source(
    files: MakeFiles, target: InstallTarget, compiler: BytecodeCompiler, tmp_path: Path
):
    """Its hash is not checked against the source, so that nothing is read that is not run."""
    write_tree(with_bytecode(files(**{"a.py": b"print('compiled')\n"}), target, compiler), tmp_path)
    folder = tmp_path / target.in_tree(target.site_packages)
    (folder / "a.py").write_text("print('source')\n")
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import a"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "compiled\n"


def test_source_that_does_not_compile_fails_as_it_always_would(
    files: MakeFiles, target: InstallTarget, compiler: BytecodeCompiler, tmp_path: Path
):
    """Its bytecode is an empty file, which Python passes over: the import gives the usual SyntaxError."""
    write_tree(with_bytecode(files(**{"a.py": b"def (:\n", "b.py": b""}), target, compiler), tmp_path)
    folder = tmp_path / target.in_tree(target.site_packages)
    assert (folder / f"__pycache__/a.{TAG}.pyc").read_bytes() == b""
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import b, a"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "SyntaxError" in failed.stderr


@pytest.mark.parametrize("has_compiler", [True, False])
def test_bytecode_that_a_package_brings_is_rebound(
    files: MakeFiles,
    target: InstallTarget,
    compiler: BytecodeCompiler,
    listing: Read,
    tmp_path: Path,
    *,
    has_compiler: bool,
):
    """It is the code that the package was built with; only what ties it to a time goes."""
    source = tmp_path / "a.py"
    source.write_text("x = 1\n")
    pyc = Path(py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)).read_bytes()
    cached = f"__pycache__/a.{TAG}.pyc"
    entries = with_bytecode(files(**{"a.py": b"x = 1\n", cached: pyc}), target, compiler if has_compiler else None)
    rebound = listing(entries, target)[f"{target.site_packages}/{cached}"]
    assert rebound[:8] == importlib.util.MAGIC_NUMBER + b"\1\0\0\0"
    assert rebound[16:] == pyc[16:]
    write_tree(entries, tmp_path / "tree")
    folder = tmp_path / "tree" / target.in_tree(target.site_packages)
    command = [sys.executable, "-I", "-v", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import a"]
    assert f"code object from {str(folder / cached)!r}" in subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stderr.replace("matches", "code object from")


def test_useless_bytecode_of_packages_is_left_out(files: MakeFiles, target: InstallTarget, listing: Read):
    """That of tests, of other Pythons and of other levels of optimisation; what has no source stays."""
    brought = {
        "pkg/a.py": b"",
        "pkg/__pycache__/a.cpython-27.pyc": b"x" * 20,
        f"pkg/__pycache__/a.{TAG}.opt-1.pyc": b"x" * 20,
        "pkg/tests/t.py": b"",
        f"pkg/tests/__pycache__/t.{TAG}.pyc": b"x" * 20,
        f"pkg/__pycache__/sourceless.{TAG}.pyc": b"x" * 20,
        "pkg/legacy.pyc": b"x" * 20,
    }
    entries = with_bytecode(files(**brought), target, None)
    assert _names(entries, target) == [
        f"pkg/__pycache__/sourceless.{TAG}.pyc",
        "pkg/a.py",
        "pkg/legacy.pyc",
        "pkg/tests/t.py",
    ]


def test_bytecode_is_forgotten_once_it_was_read_and_made_again(
    files: MakeFiles, target: InstallTarget, compiler: BytecodeCompiler
):
    """An environment's bytecode is not held in memory; a second look at a file gives the same."""
    pyc = next(e for e in with_bytecode(files(**{"a.py": b"x = 1\n"}), target, compiler) if e.path.endswith(".pyc"))
    pyc.content.prefetch()
    size = pyc.content.size
    first, second = (pyc.content.open().read() for _ in range(2))
    assert first == second
    assert len(first) == size
    assert pyc.content._pending is None
