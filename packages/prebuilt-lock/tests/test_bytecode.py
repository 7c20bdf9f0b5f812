"""Bytecode: the same bytes from every process, whatever it compiled before; processes that come and go."""

from __future__ import annotations

import contextlib
import importlib.util
import marshal
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.errors import BuildError, CancelledError
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.testing.processes import is_running
from prebuilt.testing.waiting import eventually, eventually_gone

OWN = "{}.{}".format(*sys.version_info)
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

SET_OF_WORDS = b"def f(x):\n    return x in {'alpha', 'beta', 'gamma', 'delta', 1, 2.5, (1, 'x')}\n"
SAME_SET_TWICE = b"def f(x):\n    return x in {'225', '226'}\n\n\ndef g(x):\n    return x in {'225', '226'}\n"
NESTED_CLASS = b"class A:\n    class Meta:\n        def f(self): return '', 'a', ' ', 'not an identifier', b'', ()\n"
INTERNS_WORDS = b"x225 = '225'\n226 in ['226', 'alpha', 'gamma']\nfrom . import a\nimport os.path\n"
SAMPLES = (SET_OF_WORDS, SAME_SET_TWICE, NESTED_CLASS, INTERNS_WORDS)


@contextlib.contextmanager
def _compiler_of(xy: str, workers: int = 1) -> Iterator[BytecodeCompiler]:
    interpreter = find_interpreter(xy)
    if interpreter is None:
        pytest.skip(f"no Python {xy} on this machine: `uv python install {xy}` brings one")
    with BytecodeCompiler(interpreter, xy, workers=workers) as compiler:
        yield compiler


def test_the_result_is_what_an_import_would_run():
    """The file has this Python's magic number, the flag for a hash that is not checked, and code that knows its path."""
    with _compiler_of(OWN) as compiler:
        pyc = compiler.submit(b"x = 41 + 1\n", "/opt/prebuilt/env/lib/x.py").result()
    assert pyc[:4] == importlib.util.MAGIC_NUMBER
    assert pyc[4:8] == b"\1\0\0\0"
    assert pyc[8:16] == importlib.util.source_hash(b"x = 41 + 1\n")
    code = marshal.loads(pyc[16:])  # noqa: S302 - we made it
    assert code.co_filename == "/opt/prebuilt/env/lib/x.py"
    namespace: dict[str, int] = {}
    exec(code, namespace)  # noqa: S102 - we made it
    assert namespace["x"] == 42


@pytest.mark.parametrize(
    "source", [b"def (:\n", b"x = 1\0\n", b"# coding: nonsense\n", b"x = '\xff'\n", b"(" * 1000 + b")" * 1000]
)
def test_source_that_does_not_compile_has_no_bytecode(source: bytes):
    """Whatever is wrong with a source, the result is empty and the process lives on."""
    with _compiler_of(OWN) as compiler:
        assert compiler.submit(source, "/x.py").result() == b""
        assert compiler.submit(b"x = 1\n", "/x.py").result() != b""


@pytest.mark.parametrize("xy", VERSIONS)
def test_what_was_compiled_before_does_not_show(xy: str):
    """In each order, alone or after others, in this process or that, a file gives the same bytes."""
    library = Path(os.__file__).parent
    others = [(library / name).read_bytes() for name in ("argparse.py", "ftplib.py", "weakref.py", "typing.py")]
    sources = [*SAMPLES, *others]
    alone = []
    for source in sources:
        with _compiler_of(xy) as compiler:
            alone.append(compiler.submit(source, "/x.py").result())
    for order in (sources, sources[::-1]):
        with _compiler_of(xy) as compiler:
            results = {source: compiler.submit(source, "/x.py").result() for source in order}
        assert [results[source] for source in sources] == alone


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_the_hash_seed_of_the_deploying_process_does_not_show(monkeypatch: pytest.MonkeyPatch, seed: str):
    """Sets are written in one order, whatever PYTHONHASHSEED or any other PYTHON variable says here."""
    with _compiler_of("3.10") as compiler:
        expected = compiler.submit(SET_OF_WORDS, "/x.py").result()
    monkeypatch.setenv("PYTHONHASHSEED", seed)
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    with _compiler_of("3.10") as compiler:
        assert compiler.submit(SET_OF_WORDS, "/x.py").result() == expected


@pytest.mark.parametrize(
    ("source", "has_bytecode"), [(b"y = x in {None, 'a'}\n", False), (b"y = x in {1, 'a'}\n", True)]
)
def test_a_set_that_python_310_orders_by_address_leaves_its_file_uncompiled(source: bytes, *, has_bytecode: bool):
    """Python 3.10 hashes None by its address, so no two processes agree about the order of such a set."""
    with _compiler_of("3.10") as compiler:
        assert bool(compiler.submit(source, "/x.py").result()) == has_bytecode


def test_files_are_compiled_in_several_processes():
    """More work than processes is queued, and every result is that of its source."""
    with _compiler_of(OWN, workers=2) as compiler:
        futures = [compiler.submit(f"x = {number}\n".encode(), f"/{number}.py") for number in range(100)]
        for number, future in enumerate(futures):
            assert marshal.loads(future.result()[16:]).co_filename == f"/{number}.py"  # noqa: S302


def test_a_process_that_dies_is_replaced(tmp_path: Path):
    """Lack of memory may kill a process that did nothing wrong: the file is tried once more."""
    interpreter, died = tmp_path / "python", tmp_path / "died"
    script = f'#!/bin/sh\n[ -e {died} ] && exec {sys.executable} "$@"\ntouch {died}\n'
    script += "exec {} -c \"import os; os.write(1, bytes([0,0,0,{}]) + b'cpython {} final ')\"\n".format(
        sys.executable, len(f"cpython {OWN} final "), OWN
    )
    interpreter.write_text(script)
    interpreter.chmod(0o755)
    with BytecodeCompiler(interpreter, OWN, workers=1) as compiler:
        assert compiler.submit(b"x = 1\n", "/x.py").result()


def test_a_file_that_kills_its_process_twice_is_named(tmp_path: Path):
    """Trying for ever would hang; the error says which file it was."""
    interpreter = tmp_path / "python"
    greeting = f"cpython {OWN} final "
    answer = f"import os; os.write(1, bytes([0, 0, 0, {len(greeting)}]) + {greeting.encode()!r})"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{answer}"\n')
    interpreter.chmod(0o755)
    with (
        BytecodeCompiler(interpreter, OWN, workers=1) as compiler,
        pytest.raises(BuildError, match=r"compile /deadly\.py .*twice"),
    ):
        compiler.submit(b"x = 1\n", "/deadly.py").result()


def test_another_python_than_was_asked_for_is_refused():
    """Bytecode of another version is worth nothing, and nobody would notice."""
    with (
        BytecodeCompiler(Path(sys.executable), "3.7", workers=1) as compiler,
        pytest.raises(BuildError, match=rf"it is not CPython 3\.7: it answered 'cpython {OWN} final'"),
    ):
        compiler.submit(b"", "/x.py").result()


def test_an_interpreter_that_is_not_there_is_an_error(tmp_path: Path):
    """It may have been removed since it was found."""
    with (
        BytecodeCompiler(tmp_path / "python", OWN, workers=1) as compiler,
        pytest.raises(BuildError, match="No such file"),
    ):
        compiler.submit(b"", "/x.py").result()


@pytest.mark.parametrize("greets", [True, False], ids=["compiling", "starting"])
def test_closing_stops_at_once_what_is_under_way(tmp_path: Path, *, greets: bool):
    """A file that takes for ever to compile does not hold anybody up, nor does a process that takes for ever to start."""
    interpreter, began = tmp_path / "python", tmp_path / "began"
    greeting = f"cpython {OWN} final "
    answer = f"os.write(1, bytes([0, 0, 0, {len(greeting)}]) + {greeting.encode()!r}); os.read(0, 1)" if greets else "0"
    program = f"import os, time; {answer}; open('{began}', 'w'); time.sleep(600)"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    interpreter.chmod(0o755)
    with BytecodeCompiler(interpreter, OWN, workers=1) as compiler:
        futures = [compiler.submit(b"x = 1\n", f"/{number}.py") for number in range(4)]
        eventually(began.exists)
        began_s = time.monotonic()
        compiler.close()
        assert time.monotonic() - began_s < 20
    assert isinstance(futures[0].exception(), CancelledError)
    assert futures[-1].cancelled()


def test_processes_end_when_their_parent_is_killed(tmp_path: Path):
    """Nothing is left behind, not even by a kill that leaves no time to tidy up."""
    program = (
        "import sys, time; from pathlib import Path; from prebuilt.lock.bytecode import BytecodeCompiler\n"
        f"c = BytecodeCompiler(Path(sys.executable), {OWN!r}, workers=1); c.submit(b'', '/x.py').result()\n"
        "print(next(iter(c._all))._process.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    try:
        eventually_gone(lambda: is_running(child))
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise
