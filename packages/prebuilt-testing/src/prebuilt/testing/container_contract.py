"""What every engine that runs containers does alike: a class of tests to be subclassed for each of them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.errors import ContainerError
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import ContainerRun, Engine, Mount, open_engine
from prebuilt.oci.layout import LayoutRepository
from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.mounts import mounted_below
from prebuilt.testing.processes import command_lines, commands_with
from prebuilt.testing.tar_image import TarLayer, busybox_layer, push_tar_image
from prebuilt.testing.waiting import eventually, eventually_gone

Shell = Callable[..., tuple[int, str, str]]
"""Runs a line of shell; returns exit code, standard output and standard error."""

_GRACE_S = 8.0  # engines give a command ten seconds, and kill it: ours are not to wait for that
_RUN = 10**7 + secrets.randbelow(10**8)  # tells the processes of this run from those of others
_CALLER = """\
import json, sys
from pathlib import Path
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import ContainerRun, open_engine
name, cache, image, command = json.loads(sys.argv[1])
engine = open_engine(name, Settings({"METAFLOW_PREBUILT_CACHE_DIR": cache}, {}))
sys.exit(engine.run(ContainerRun(image=image, command=tuple(command))))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerWorld:
    """What the tests of one engine share.

    Attributes:
        engine: With an empty cache.
        folder: For layout, cache and mounts.
        layout: An image layout.
        image: An image in it, with a shell, several layers, whiteouts and hard links.
    """

    engine: Engine
    folder: Path
    layout: LayoutRepository
    image: str

    def sh(self, line: str, **fields: Any) -> tuple[int, str, str]:  # noqa: ANN401 - of ContainerRun
        """Run a line of shell; return exit code, standard output and standard error."""
        run = ContainerRun(image=self.image, command=("sh", "-c", line), **fields)
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            code = self.engine.run(run, stdout=stdout, stderr=stderr)
            stdout.seek(0)
            stderr.seek(0)
            return code, stdout.read().decode(), stderr.read().decode()


@contextlib.contextmanager
def container_world(engine_name: str) -> Iterator[ContainerWorld]:
    """Give what the tests of an engine share; skip them if there is nothing to put into an image, or the engine does not work."""
    with tempfile.TemporaryDirectory(prefix="prebuilt-containers-") as name:
        engine = open_engine(engine_name, Settings({"METAFLOW_PREBUILT_CACHE_DIR": f"{name}/cache"}, {}))
        layout = LayoutRepository(Path(name) / "layout")
        try:
            engine.check()
            image = _push_image(layout)
        except (ContainerError, EngineError) as error:
            pytest.skip(str(error))
        yield ContainerWorld(engine=engine, folder=Path(name), layout=layout, image=image)


def _push_image(layout: LayoutRepository) -> str:
    below = TarLayer().folder("data").folder("data/old").add("data/old/a", data=b"a").add("data/gone").add("data/kept")
    below.folder("replaced").add("replaced/below")
    above = TarLayer().folder("data").add("data/.wh.gone").folder("replaced").add("replaced/.wh..wh..opq")
    above.add("replaced/above").add("data/one", data=b"1").hardlink("data/two", "data/one").symlink(
        "absolute", "/data/one"
    )
    env = {"PATH": "/bin", "OF_IMAGE": "image", "OVERRIDDEN": "image"}
    return push_tar_image(layout, [busybox_layer(), below, above], env=env, workdir="/data", compression="zstd")


class ContainerEngineContract:
    """Run as it is by a subclass, in a module with a fixture `world` that gives a :func:`container_world`."""

    def leftovers(self) -> Sequence[str]:
        """Return what the engine itself still knows of containers."""
        return ()

    @pytest.fixture
    def engine(self, world: ContainerWorld) -> Engine:
        """Return the engine."""
        return world.engine

    @pytest.fixture
    def engine_name(self, world: ContainerWorld) -> str:
        """Return its name."""
        return world.engine.name

    @pytest.fixture
    def folder(self, world: ContainerWorld) -> Path:
        """Return the shared folder."""
        return world.folder

    @pytest.fixture
    def layout(self, world: ContainerWorld) -> LayoutRepository:
        """Return the image layout."""
        return world.layout

    @pytest.fixture
    def image(self, world: ContainerWorld) -> str:
        """Return the image."""
        return world.image

    @pytest.fixture
    def sh(self, world: ContainerWorld) -> Shell:
        """Return what runs a line of shell."""
        return world.sh

    def test_check_passes(self, engine: Engine) -> None:
        """An engine that works says so by returning."""
        engine.check()

    @pytest.mark.parametrize(("line", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)])
    def test_exit_codes_are_a_shells(self, sh: Shell, line: str, code: int) -> None:
        """The exit code is the command's, or 128 and its signal."""
        assert sh(line)[0] == code

    def test_missing_command_is_127(self, engine: Engine, image: str) -> None:
        """A command that the image lacks ends as in a shell; it is no failure of the engine."""
        with Path(os.devnull).open("wb") as null:
            assert engine.run(ContainerRun(image=image, command=("no-such-program",)), stderr=null) == 127  # noqa: PLR2004

    def test_streams_are_separate_and_whole(self, sh: Shell) -> None:
        """Nothing of both streams is lost or mixed up, however much it is."""
        code, out, err = sh("for i in $(seq 20000); do echo out $i; echo err $i >&2; done")
        assert code == 0
        assert out == "".join(f"out {i}\n" for i in range(1, 20001))
        assert err == "".join(f"err {i}\n" for i in range(1, 20001))

    def test_one_pipe_keeps_the_order_of_both_streams(self, engine: Engine, image: str) -> None:
        """Both streams may go to one place; each is in its order, and the last line is there."""
        line = "for i in $(seq 100); do echo out $i; echo err $i >&2; done; echo end"
        with tempfile.TemporaryFile() as both:
            engine.run(ContainerRun(image=image, command=("sh", "-c", line)), stdout=both, stderr=both)
            both.seek(0)
            lines = both.read().decode().splitlines()
        assert [text for text in lines if text.startswith("out")] == [f"out {i}" for i in range(1, 101)]
        assert [text for text in lines if text.startswith("err")] == [f"err {i}" for i in range(1, 101)]
        assert "end" in lines

    def test_standard_input_is_empty(self, sh: Shell) -> None:
        """A command that reads gets to the end at once."""
        assert sh("cat; echo done")[:2] == (0, "done\n")

    def test_environment_is_the_images_and_the_runs(self, sh: Shell) -> None:
        """Variables arrive byte for byte, those of the run above those of the image."""
        env = {
            "LINES": "one\ntwo\n",
            "QUOTES": "'\"$HOME`\\",
            "WÖRT": "größe ✓",
            "EMPTY": "",
            "OVERRIDDEN": "run",
            "HOME": "/root/of/run",
        }
        _, out, _ = sh("cat /proc/$$/environ; true", env=env)
        seen = dict(variable.split("=", 1) for variable in out.rstrip("\0").split("\0"))
        assert {name: seen.get(name) for name in env} == env
        assert (seen["OF_IMAGE"], seen["PATH"]) == ("image", "/bin")

    def test_nothing_else_of_the_environment_gets_in(self, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        """What this process has in its environment stays outside."""
        monkeypatch.setenv("OUTSIDE", "secret")
        assert "secret" not in sh("env")[1]

    def test_values_are_not_in_arguments(self, engine: Engine, image: str) -> None:
        """No process on this machine shows a variable's value in its arguments."""
        run = ContainerRun(image=image, command=("sleep", "60"), env={"TOKEN": "s3cr3t-of-a-run"})
        container = engine.start(run)
        try:
            assert not commands_with("s3cr3t-of-a-run")
        finally:
            container.kill()

    def test_workdir_is_the_images(self, sh: Shell) -> None:
        """Without a working directory it is that of the image."""
        assert sh("pwd")[1] == "/data\n"

    def test_missing_workdir_is_made(self, sh: Shell) -> None:
        """A working directory that the image lacks is made."""
        assert sh("pwd", workdir="/made/for/this")[1] == "/made/for/this\n"

    def test_layers_are_laid_over_one_another(self, sh: Shell) -> None:
        """Whiteouts hide files, opaque folders hide what is below, hard links are one file."""
        _, out, _ = sh("ls /data /replaced; cat /absolute two; stat -c %h one")
        assert out == "/data:\nkept\nold\none\ntwo\n\n/replaced:\nabove\n112\n"

    def test_the_image_can_be_written_to_and_is_not_changed(self, engine: Engine, image: str) -> None:
        """Each run has the image to itself."""
        code = (
            "sh",
            "-c",
            "test ! -e /tmp/new && echo x > /tmp/new && rm -rf /tmp/old && mkdir -p /tmp/old/deep && mv /tmp/new /tmp/old",
        )
        assert [engine.run(ContainerRun(image=image, command=code)) for _ in range(2)] == [0, 0]

    def test_mounts_belong_to_the_caller(self, sh: Shell, folder: Path) -> None:
        """What a command writes into a mount is this user's, and it sees what is there."""
        (folder / "odd, name").mkdir()
        (folder / "odd, name" / "there").write_text("there")
        mount = Mount(source=folder / "odd, name", target="/deep/in/the image")
        assert sh("cat there; echo new > new", mounts=(mount,), workdir=mount.target)[:2] == (0, "there")
        made = folder / "odd, name" / "new"
        assert (made.read_text(), made.stat().st_uid, made.stat().st_gid) == ("new\n", os.geteuid(), os.getegid())

    def test_read_only_mounts_cannot_be_written(self, sh: Shell, folder: Path) -> None:
        """A read-only mount is, for folders and for single files."""
        (folder / "file").write_text("as it was")
        mounts = (
            Mount(source=folder, target="/folder", read_only=True),
            Mount(source=folder / "file", target="/data/file", read_only=True),
        )
        code, out, err = sh("cat /data/file; echo x > /folder/y; echo x > /data/file", mounts=mounts)
        assert (code, out) == (1, "as it was")
        assert err.lower().count("read-only") == 2  # noqa: PLR2004
        assert (folder / "file").read_text() == "as it was"

    def test_limits_of_a_larger_machine_are_no_obstacle(self, sh: Shell) -> None:
        """What was written for a node of a cluster runs at a desk."""
        assert sh("true", cpus=4096.0, memory_mb=64 << 20)[0] == 0

    def test_mount_of_nothing_is_an_error(self, engine: Engine, image: str, folder: Path) -> None:
        """A source that is not there is not made up."""
        run = ContainerRun(image=image, command=("true",), mounts=(Mount(source=folder / "absent", target="/x"),))
        with Path(os.devnull).open("wb") as null, pytest.raises(ContainerError):
            engine.run(run, stderr=null)
        assert not (folder / "absent").exists()

    def test_processes_are_its_own(self, sh: Shell) -> None:
        """A command sees no process of this machine, cannot gain rights, and has the devices that programs expect."""
        _, out, _ = sh(
            "ls /proc | grep -c '^[0-9]'; grep NoNewPrivs /proc/self/status; head -c 4 /dev/zero | wc -c; echo x > /dev/null"
        )
        count, privileges, zeros = out.splitlines()
        assert int(count) < 10  # noqa: PLR2004
        assert (privileges.split(), zeros.strip()) == (["NoNewPrivs:", "1"], "4")

    def test_what_a_command_leaves_running_ends_with_it(self, sh: Shell) -> None:
        """Background processes do not outlive the command, and do not hold it up."""
        started_s = time.monotonic()
        assert sh(f"/bin/sleep {_long(1)} & true")[0] == 0
        assert time.monotonic() - started_s < 60  # noqa: PLR2004
        assert not _running(_long(1))

    def test_a_second_run_is_quick(self, engine: Engine, image: str) -> None:
        """With the image at hand, a run takes a moment."""
        run = ContainerRun(image=image, command=("true",))
        engine.run(run)
        durations_s = []
        for _ in range(3):
            started_s = time.monotonic()
            engine.run(run)
            durations_s.append(time.monotonic() - started_s)
        assert min(durations_s) < _GRACE_S

    def test_many_at_once(self, engine: Engine, image: str) -> None:
        """Runs from several threads do not get into each other's way."""

        def run(number: int) -> int:
            return engine.run(
                ContainerRun(image=image, command=("sh", "-c", f"echo {number} > /tmp/n; exit $(cat /tmp/n)"))
            )

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(run, range(24))) == list(range(24))

    def test_kill_ends_it(self, engine: Engine, image: str) -> None:
        """A killed container is gone when `kill` returns, and can be killed again."""
        container = engine.start(ContainerRun(image=image, command=("sleep", _long(2))))
        eventually(lambda: _running(_long(2)))
        container.kill()
        container.kill()
        assert not _running(_long(2))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signals_reach_the_command(self, engine_name: str, folder: Path, image: str, number: int) -> None:
        """A signal to the caller is handled by the command, which decides how it ends."""
        line = f"trap 'echo caught; exit 7' {int(number)}; echo ready; while :; do sleep 0.05; done"
        with _caller(engine_name, folder, image, ("sh", "-c", line)) as process:
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (7, b"caught\n")

    def test_ignored_signals_stay_ignored(self, engine_name: str, folder: Path, image: str) -> None:
        """What nohup started goes on when its terminal is closed, and so does the command."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            line = "trap 'exit 7' HUP; echo ready; sleep 1; echo going on"
            with _caller(engine_name, folder, image, ("sh", "-c", line)) as process:
                process.send_signal(signal.SIGHUP)
                out, _ = process.communicate(timeout=60)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert (process.returncode, out) == (0, b"going on\n")

    def test_sigterm_ends_a_command_that_does_not_care(self, engine_name: str, folder: Path, image: str) -> None:
        """A command without a handler ends at once, though it is alone in its PID namespace."""
        with _caller(engine_name, folder, image, ("sh", "-c", f"echo ready; exec /bin/sleep {_long(3)}")) as process:
            sent_s = time.monotonic()
            process.terminate()
            process.communicate(timeout=60)
            took_s = time.monotonic() - sent_s
        assert process.returncode == 128 + signal.SIGTERM
        assert took_s < _GRACE_S
        assert not _running(_long(3))

    def test_sigkill_of_the_caller_leaves_nothing(self, engine_name: str, folder: Path, image: str) -> None:
        """Nothing of the container is there a moment after its caller was killed."""
        with _caller(
            engine_name, folder, image, ("sh", "-c", f"/bin/sleep {_long(4)} & echo ready; exec /bin/sleep {_long(4)}")
        ) as process:
            eventually(lambda: len(_running(_long(4))) >= 2)  # noqa: PLR2004
            process.kill()
            process.communicate(timeout=60)
        eventually_gone(lambda: _running(_long(4)))
        eventually_gone(lambda: mounted_below(folder))
        eventually_gone(self.leftovers)
        eventually_gone(lambda: list((folder / "tmp").iterdir()))


@contextlib.contextmanager
def _caller(engine: str, folder: Path, image: str, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start another process that runs a command, and wait until that has said that it is ready."""
    (folder / "tmp").mkdir(exist_ok=True)
    environ = {**os.environ, "TMPDIR": str(folder / "tmp")}
    argument = json.dumps([engine, str(folder / "cache"), image, command])
    with subprocess.Popen(
        [sys.executable, "-c", _CALLER, argument], stdout=subprocess.PIPE, bufsize=0, env=environ
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _long(number: int) -> str:
    """Return seconds to sleep: those of a test of this run, while other runs of this suite may be under way."""
    return str(_RUN * 10 + number)


def _running(argument: str) -> list[list[str]]:
    """Return the processes called ``sleep`` with this argument; busybox has its shell not call its own so, but /bin/sleep."""
    return [line for _, line in command_lines() if line in (["sleep", argument], ["/bin/sleep", argument])]
