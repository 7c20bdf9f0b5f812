"""Local environments: whole or not there, once for all who want them, and they run."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import BuildError, CancelledError, DigestMismatchError, PackageError
from prebuilt.core.lock import CondaPackage, Lock, LockedPackage, Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BasePython
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.materialise import materialise
from prebuilt.lock.wheelhouse import WheelHouse
from prebuilt.testing.conda_channel import CondaChannel
from prebuilt.testing.python_index import make_wheel

BASE = BasePython(path=str(Path(sys._base_executable).resolve()), version=platform.python_version())

Make = Callable[..., Path]


@pytest.fixture
def notes() -> list[str]:
    """Give the lines that the user sees."""
    return []


@pytest.fixture
def make(tmp_path: Path, notes: list[str]) -> Iterator[Make]:
    """Give a function that makes an environment at ``env`` in the test's folder."""
    with PackageFiles(Settings({}, {}), IndexConfig(), tmp_path / "cache") as files:

        def run(lock: Lock, base: BasePython | None = BASE, **more: object) -> Path:
            image = LineProgress(notes.append).image("step")
            work = tmp_path / "cache" / "work"
            return materialise(lock, tmp_path / "env", files=files, base=base, work_dir=work, progress=image, **more)

        yield run


@pytest.fixture
def wheel(tmp_path: Path) -> Callable[..., Wheel]:
    """Give a function that makes a wheel and puts it into the wheelhouse."""
    house = WheelHouse(tmp_path / "cache" / "wheels")
    return lambda name, **parts: house.add(make_wheel(tmp_path / "made", name, "1.0", **parts))


def _lock(*packages: LockedPackage, conda: bool = False) -> Lock:
    return Lock(
        req_id="0" * 40,
        target=Target(platform=Platform.host(), base_python=BASE.version),
        python_version=BASE.version,
        python_source="conda" if conda else "base",
        packages=packages,
        resolved_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
        resolver="by hand",
    )


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_wheel_is_imported_and_its_command_runs(make: Make, wheel: Callable[..., Wheel], tmp_path: Path):
    """The environment's Python finds the module; the script in bin runs with that Python."""
    files = {"demo.py": "import sys\ndef main():\n    print(sys.prefix)\n"}
    scripts = {"entry_points.txt": "[console_scripts]\ndemo = demo:main\n"}
    python = make(_lock(wheel("demo", files=files, dist_info=scripts)))
    assert python == tmp_path / "env" / "bin" / "python"
    assert _output(python, "-c", "import demo; demo.main()") == str(tmp_path / "env")
    assert _output(tmp_path / "env" / "bin" / "demo") == str(tmp_path / "env")


def test_a_conda_environment_runs_its_own_python(
    make: Make, channel: CondaChannel, conda_package: Callable[..., CondaPackage], tmp_path: Path
):
    """A real Python from the channel, with a noarch package on top, runs at the prefix that was written into it."""
    python = make(_lock(conda_package("python"), conda_package("idna"), conda=True), base=None)
    program = "import sys, idna; print(sys.prefix, sys.version.split()[0], idna.__version__)"
    assert _output(python, "-c", program) == f"{tmp_path / 'env'} {BASE.version} 3.10"


def test_a_second_call_does_nothing(make: Make, wheel: Callable[..., Wheel], tmp_path: Path):
    """What is whole stays as it is."""
    lock = _lock(wheel("demo"))
    make(lock)
    added = tmp_path / "env" / "added-by-hand"
    added.touch()
    make(lock)
    assert added.exists()


def test_another_lock_at_the_same_place_replaces_it(make: Make, wheel: Callable[..., Wheel], tmp_path: Path):
    """Nothing of the old one is left."""
    make(_lock(wheel("one")))
    python = make(_lock(wheel("two")))
    _output(python, "-c", "import two")
    assert not list((tmp_path / "env").rglob("one*"))


def test_of_two_packages_that_own_a_file_the_later_wins(make: Make, wheel: Callable[..., Wheel]):
    """The order is the lock's, however fast each comes."""
    packages = [wheel(name, files={"owned.py": f"owner = {name!r}\n"}) for name in ("aaa", "mmm", "zzz")]
    python = make(_lock(*packages))
    assert _output(python, "-c", "import owned; print(owned.owner)") == "zzz"


def test_a_half_made_environment_is_made_anew(make: Make, wheel: Callable[..., Wheel], tmp_path: Path):
    """A killed process leaves no marker, so nobody takes its folder for an environment."""
    half = tmp_path / "env" / "lib" / "half"
    half.parent.mkdir(parents=True)
    half.touch()
    python = make(_lock(wheel("demo")))
    _output(python, "-c", "import demo")
    assert not half.exists()


def test_a_base_python_that_has_gone_is_noticed(make: Make, wheel: Callable[..., Wheel], tmp_path: Path):
    """A link to nothing is no interpreter: the environment is made anew on the one that is there."""
    lock = _lock(wheel("demo"))
    python = make(lock)
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    assert _output(make(lock), "-c", "import demo; print('runs')") == "runs"


@pytest.mark.parametrize("base", [None, BasePython(path="/usr/bin/python3", version="3.4.1")])
def test_a_lock_for_another_python_than_the_machines_is_refused(make: Make, base: BasePython | None, tmp_path: Path):
    """The error says which Python is wanted; nothing is made."""
    with pytest.raises(BuildError, match=r"it needs Python 3\.\d+ of this machine, and there is (none|3\.4\.1)"):
        make(_lock(), base=base)
    assert not (tmp_path / "env").exists()


def test_an_environment_that_failed_is_not_taken_for_whole(make: Make, wheel: Callable[..., Wheel], tmp_path: Path):
    """A damaged package stops it; once the package is mended it is made."""
    package = wheel("demo")
    path = WheelHouse(tmp_path / "cache" / "wheels").path(package.sha256, package.filename)
    assert path is not None
    good = path.read_bytes()
    path.write_bytes(b"damaged")
    with pytest.raises(DigestMismatchError):
        make(_lock(wheel("other"), package))
    path.write_bytes(good)
    assert _output(make(_lock(wheel("other"), package)), "-c", "import demo, other; print('whole')") == "whole"


def test_cancelled_work_stops(make: Make, wheel: Callable[..., Wheel]):
    """A raised flag is looked at before anything is installed."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        make(_lock(wheel("demo")), cancellation=cancellation)


def test_callers_at_the_same_time_share_one_environment(make: Make, wheel: Callable[..., Wheel]):
    """Each gets a whole environment; it is made once."""
    lock = _lock(*(wheel(f"demo-{number}") for number in range(20)))
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda: outputs.append(_output(make(lock), "-c", "import demo_0, demo_19; print(1)")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == ["1"] * 4


def test_a_killed_process_leaves_nothing_that_stops_the_next(make: Make, wheel: Callable[..., Wheel], tmp_path: Path):
    """Its lock goes with it, its half-made folder is cleared."""
    lock = _lock(wheel("demo"))
    program = (
        "import sys, time, os, fcntl; from pathlib import Path\n"
        "f = open(sys.argv[1] + '/.env.lock', 'wb'); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "os.makedirs(sys.argv[1] + '/env/bin'); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        os.kill(other.pid, signal.SIGKILL)
    assert _output(make(lock), "-c", "import demo; print('whole')") == "whole"


def test_a_link_script_is_told_or_refused(
    make: Make, channel: CondaChannel, conda_package: Callable[..., CondaPackage], notes: list[str]
):
    """By default one line names the package; METAFLOW_PREBUILT_LINK_SCRIPTS=error makes it an error."""
    lock = _lock(conda_package("python"), conda_package("scripted"), conda=True)
    with pytest.raises(PackageError, match=r"install scripted-1\.0-0\.conda: it has a post-link script"):
        make(lock, link_scripts="error")
    make(lock)
    assert [note for note in notes if "scripted" in note and "post-link" in note] == [
        next(note for note in notes if "the post-link script of conda package scripted is not run" in note)
    ]
