"""The same lock gives the same manifest digest, whoever bakes it, where, when, and with which Python."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.lock.interpreter import find_interpreter
from prebuilt.testing.engines.wanted import wanted_program

pytestmark = pytest.mark.layout

NOBODY = 65534
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class First:
    """An image that was baked before, by this user, and how it is asked for."""

    bakery: Any
    asked: dict[str, Any]
    image: Any


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, make_bakery: Callable[..., Any], pantry: Any) -> First:
    """Conda's Python, conda packages of every kind, and wheels on top of them."""
    folder = tmp_path_factory.mktemp("first")
    bakery = make_bakery(folder / "machine", f"oci:{folder / 'images'}")
    asked = {
        "conda": dict.fromkeys(
            ["greeter", "prefixed", "linked", "large", "compiled", "requests", "owner-one", "owner-two"], ""
        ),
        "pypi": {"talker": "", "hefty": ""},
        "channels": [pantry.channel.url],
        "index": pantry.index.url,
    }
    return First(bakery, asked, bakery.bake(**asked))


def test_another_folder_time_place_and_language_change_nothing(first: First, tmp_path: Path) -> None:
    """Nor do the umask, the seed of hashes, the temporary folder, the number of workers, and the age of the lock."""
    time.sleep(1.1)  # locks say when they were made, in seconds
    for name in ("other home", "other temp"):
        (tmp_path / name).mkdir()
    variables = {
        "HOME": str(tmp_path / "other home"),
        "TMPDIR": str(tmp_path / "other temp"),
        "TZ": "Asia/Kathmandu",
        "LANG": "tr_TR.UTF-8",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "4711",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONOPTIMIZE": "2",
        "SOURCE_DATE_EPOCH": "86400",
        "COLUMNS": "40",
        "METAFLOW_PREBUILT_LAYER_WORKERS": "1",
    }
    other = replace(
        first.bakery,
        folder=_made(tmp_path / "a longer name of another folder"),
        repository=f"oci:{tmp_path / 'elsewhere'}",
        variables=variables,
        prefix=("sh", "-c", 'umask 077; exec "$@"', "sh"),
    )
    again = other.bake(**first.asked)
    assert not again.reused
    assert again.digest == first.image.digest
    assert again.lock.resolved_at > first.image.lock.resolved_at


def test_another_user_bakes_the_same(first: First, strangers_folder: Path) -> None:
    """One without any right, whose home and layout are its own; to read this checkout is all that it is allowed beyond."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user: run the tests as root")
    setpriv = wanted_program("setpriv", brought_by="apt-get install util-linux")
    become = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    reading = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    other = replace(
        first.bakery,
        folder=strangers_folder,
        repository=f"oci:{strangers_folder / 'images'}",
        variables={"HOME": str(strangers_folder), "TMPDIR": str(strangers_folder), "USER": "nobody"},
        prefix=(*become, *reading),
    )
    again = other.bake(**first.asked)
    assert not again.reused
    assert again.digest == first.image.digest
    assert {path.stat().st_uid for path in (strangers_folder / "images").rglob("*")} == {NOBODY}


@pytest.fixture
def strangers_folder() -> Iterator[Path]:
    """A folder of the other user's, which pytest's own folders would not let that user reach."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="prebuilt-nobody-") as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize("xy", ["3.10", "3.13"])
def test_another_python_bakes_the_same(xy: str, first: First, tmp_path: Path) -> None:
    """The Python that runs the builder does not show: what compiles bytecode is that of the image."""
    python = _environment(xy, tmp_path / "venv")
    other = replace(
        first.bakery,
        folder=_made(tmp_path / "machine"),
        repository=f"oci:{tmp_path / 'images'}",
        python=str(python),
        variables={
            "PATH": f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"
        },  # where the image's Python is found
    )
    again = other.bake(**first.asked)
    assert again.bytecode
    assert again.digest == first.image.digest


def _environment(xy: str, folder: Path) -> Path:
    """Return the interpreter of a new environment on Python `xy` with our packages and the third-party ones of this process."""
    import importlib.metadata

    base = find_interpreter(xy)
    if base is None:
        pytest.skip(f"there is no Python {xy}: uv python install {xy}")
    from uv import find_uv_bin

    ours = [ROOT / "packages" / f"prebuilt-{name}" for name in ("core", "oci", "lock", "native", "testing")]
    pins = folder.with_name("pins.txt")
    same = ("zstandard", "py-rattler", "isal", "uv")
    pins.write_text("".join(f"{name}=={importlib.metadata.version(name)}\n" for name in same))
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for command in (
        ("venv", "--quiet", "--python", str(base), str(folder)),
        ("pip", "install", "--quiet", "--python", str(folder), "--constraint", str(pins), *map(str, ours)),
    ):
        done = subprocess.run([find_uv_bin(), *command], capture_output=True, text=True, env=environ, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
