"""Full and closed disks, Ctrl-C, and processes that do the same at once."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from prebuilt.testing.python_index import IndexedFile, PackageIndex, make_wheel
from prebuilt.testing.waiting import eventually

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

LARGE = {f"large{number}": "1.0" for number in range(4)}
STOPPED = "stopped; what is finished is kept and used next time"


@dataclass(kw_only=True)
class StallingIndex(PackageIndex):
    """An index that may stand still: while `open` is not set, files are asked for in vain."""

    open: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def file(self, filename: str) -> IndexedFile | None:
        """Wait until files are given out again."""
        self.asked.set()
        assert self.open.wait(600)
        return super().file(filename)


@pytest.fixture
def stalling(place, tmp_path) -> Iterator[StallingIndex]:
    """Return the index of the place, which does not stand still yet; it has some MB in four packages."""
    index = StallingIndex()
    index.add(make_wheel(tmp_path / "dist", "requests", "2.32"))
    for name in LARGE:
        noise = random.Random(name).randbytes(1_000_000)  # noqa: S311 - not a secret
        index.add(make_wheel(tmp_path / "dist", name, "1.0", files={f"{name}/noise.bin": noise}))
    index.open.set()
    with index.serving():
        place.variables["PIP_INDEX_URL"] = index.url
        yield index
        index.open.set()


@pytest.fixture
def namespace():
    """Return the start of a command in which a shell script may mount what it likes; skip where that is forbidden."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    if subprocess.run([*command, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode:
        pytest.skip("unshare(1) may make no namespaces here: allow user namespaces")
    return command


class TestDisks:
    @pytest.mark.parametrize("size", ["100k", "3m"], ids=["downloads", "layers"])
    def test_a_full_disk_is_named(self, place, stalling, namespace, tmp_path, size):
        """What to do is said; with space again the deployment comes through, on what the first one left."""
        place.cache.mkdir()
        kept = tmp_path / "kept"
        script = f"""
            mount -t tmpfs -o size={size} none {place.cache}
            "$@" || echo "ended with $?"
            mount -o remount,size=100m {place.cache}
            "$@" || true
            cp -r {place.cache} {kept}
        """
        with place.start(pypi=LARGE, prefix=[*namespace, script, "sh"]) as process:
            text, _ = process.communicate(timeout=600)
        full, marker, then = text.partition("ended with 1\n")
        message = replace(place.outcome(full), code=1).message
        assert marker
        assert "No space left on device; free some space, or set METAFLOW_PREBUILT_CACHE_DIR" in message
        assert place.outcome(then).deployed
        place.variables["METAFLOW_PREBUILT_CACHE_DIR"] = str(kept)
        assert place.is_intact(images=1)

    def test_a_read_only_disk_is_named(self, place, namespace):
        """With the setting that names another place."""
        place.cache.mkdir()
        script = f'mount -t tmpfs -o ro none {place.cache}; exec "$@"'
        message = place.run(pypi={"fine": "2.32"}, prefix=[*namespace, script, "sh"]).message
        assert f"at {place.cache}" in message
        assert "Read-only file system; set METAFLOW_PREBUILT_CACHE_DIR" in message

    def test_a_closed_folder_is_named(self, place, namespace):
        """Root, too, may not write there in a namespace that does not know it."""
        place.cache.mkdir(mode=0o555)
        prefix = ["unshare", "--user"] if os.geteuid() == 0 else []
        message = place.run(pypi={"fine": "2.32"}, prefix=prefix).message
        assert f"at {place.cache}" in message
        assert "Permission denied; make it writable, or set METAFLOW_PREBUILT_CACHE_DIR" in message

    def test_a_layout_that_is_something_else_is_left_alone(self, place, tmp_path):
        """A folder with the user's files is not turned into a layout."""
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("precious")
        message = place.run(pypi={"fine": "2.32"}, METAFLOW_PREBUILT_LAYOUT=str(tmp_path / "mine")).message
        assert "the folder holds other things, thesis.txt for one" in message
        assert [path.name for path in (tmp_path / "mine").iterdir() if path.name[0] != "."] == ["thesis.txt"]


class TestCtrlC:
    def interrupted(self, process: subprocess.Popen[str]) -> None:
        """Send what a terminal sends."""
        os.killpg(process.pid, signal.SIGINT)

    def test_while_packages_are_resolved(self, place, stalling):
        """One clean message, at once, although the index does not answer."""
        stalling.open.clear()
        with place.start(pypi=LARGE) as process:
            assert stalling.asked.wait(300)
            before = time.monotonic()
            self.interrupted(process)
            text, _ = process.communicate(timeout=30)
        assert time.monotonic() - before < 25
        assert place.outcome(text, process.returncode).message == STOPPED
        assert place.is_intact(images=0)

    def test_while_packages_are_downloaded(self, place, stalling):
        """It is noticed at once and done when what is under way has ended; the next deployment takes up from there."""
        self.stall_the_bake(place, stalling)
        with place.start(pypi=LARGE) as process:
            assert stalling.asked.wait(300)
            self.interrupted(process)
            said = self.lines_up_to(process, "prebuilt: stopping what is under way\n")
            stalling.open.set()
            rest, _ = process.communicate(timeout=30)
        assert place.outcome(said + rest, process.returncode).message == STOPPED
        assert place.is_intact(images=1)
        assert place.run(pypi=LARGE).deployed

    def test_while_a_tasks_image_is_unpacked(self, in_registry, registry):
        """The run is interrupted, and nothing that is left is taken for whole by the next one."""
        registry.delay("GET", "site/images/blobs", delay_s=4, times=99)
        with in_registry.start(pypi={"fine": "2.32"}) as process:
            said = self.lines_up_to(process, "Task is starting.\n")
            # A deploy reads nothing back: whoever does is the task.
            eventually(lambda: registry.count("GET", "site/images/blobs") or process.poll() is not None, within_s=300)
            assert process.poll() is None
            self.interrupted(process)
            rest, _ = process.communicate(timeout=120)
        assert "Workflow interrupted" in rest
        assert "Traceback" not in said + rest
        registry.faults.clear()
        assert in_registry.run(pypi={"fine": "2.32"}).deployed
        layers = in_registry.cache / "layers" / "1"
        assert {path.suffix for path in layers.iterdir()} == {"", ".lock"}

    def test_the_second_one_does_not_wait(self, place, stalling):
        """The process is gone, and nothing that it left is taken for whole."""
        self.stall_the_bake(place, stalling)
        with place.start(pypi=LARGE) as process:
            assert stalling.asked.wait(300)
            self.interrupted(process)
            self.lines_up_to(process, "prebuilt: stopping what is under way\n")
            before = time.monotonic()
            self.interrupted(process)
            process.communicate(timeout=30)
        assert time.monotonic() - before < 25
        assert process.returncode == -signal.SIGINT
        stalling.open.set()
        assert place.run(pypi=LARGE).deployed

    def test_a_killed_deployment_is_taken_up(self, place, stalling):
        """Whatever a killed process left, the next one makes whole images."""
        self.stall_the_bake(place, stalling)
        with place.start(pypi=LARGE) as process:
            assert stalling.asked.wait(300)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)
        stalling.open.set()
        assert place.run(pypi=LARGE).deployed
        assert len(place.valid_images()) == 1

    @staticmethod
    def stall_the_bake(place, stalling):
        """Bake once, forget the layers but not the lock, and have the index stand still: the next bake waits for files."""
        assert place.run(pypi=LARGE).deployed
        place.forget_layers()
        place.variables["METAFLOW_PREBUILT_REGISTRY_CACHE"] = "0"
        stalling.open.clear()
        stalling.asked.clear()

    @staticmethod
    def lines_up_to(process: subprocess.Popen[str], wanted: str) -> str:
        """Return what the process printed up to a line that ends so."""
        text = ""
        for line in process.stdout or ():
            text += line
            if line.endswith(wanted):
                return text
        raise AssertionError(text)


def test_processes_may_bake_the_same_image_at_once(place, stalling):
    """Each comes through, and the layout has the image once, whole."""
    processes = [place.start(pypi=LARGE) for _ in range(3)]
    for process in processes:
        with process:
            text, _ = process.communicate(timeout=600)
        assert place.outcome(text).deployed, text
    assert place.is_intact(images=1)


def test_on_a_terminal_the_message_is_there_once(place):
    """Live lines are gone when the message comes."""
    master, slave = os.openpty()
    try:
        with place.start(pypi={"nosuch": "1.0"}, stderr=slave) as process:
            os.close(slave)
            text = b""
            with open(master, "rb", buffering=0, closefd=False) as terminal:
                while chunk := _read(terminal):
                    text += chunk
            process.communicate(timeout=30)
    finally:
        os.close(master)
    shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text.decode().replace("\r\n", "\n"))
    assert "nosuch was not found" in place.outcome(shown, process.returncode).message
    assert shown.count("nosuch was not found") == 1


def _read(terminal) -> bytes:
    try:
        return terminal.read(4096)
    except OSError:  # EIO is how a terminal ends
        return b""
