"""A command that builds."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import CancelledError, EngineError
from prebuilt.core.tool_process import ask_tool, run_tool
from prebuilt.testing.processes import is_running
from prebuilt.testing.waiting import eventually_gone

_DEAF = "trap '' TERM; echo ready; sleep 60 & sleep 60"


def _sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_lines_arrive_as_they_come() -> None:
    """Both streams are passed on line by line, in order, while the command runs; redrawn lines become lines."""
    said: list[tuple[str, bool]] = []
    go_on = threading.Event()

    def chunks() -> Iterator[bytes]:
        assert go_on.wait(30)
        yield b"x"

    def hear(line: str) -> None:
        said.append((line, go_on.is_set()))
        if line == "two":
            go_on.set()

    script = r"echo one; echo two >&2; cat >/dev/null; printf 'a\rb\nlast'; exit 3"
    assert run_tool(_sh(script), output=hear, stdin=chunks()) == 3
    assert said == [("one", False), ("two", False), ("a", True), ("b", True), ("last", True)]


def test_is_fed() -> None:
    """The chunks arrive on standard input, more than a pipe holds, and end."""
    said: list[str] = []
    assert run_tool(["wc", "-c"], output=said.append, stdin=(b"x" * 100_000 for _ in range(5))) == 0
    assert said[0].strip() == "500000"


def test_may_end_without_reading() -> None:
    """A command that ends before it has read everything is judged by its exit status."""
    assert run_tool(_sh("exit 4"), output=print, stdin=(b"x" * 100_000 for _ in range(50))) == 4


def test_errors_may_be_heard_apart() -> None:
    """Who asks for it gets the lines of either stream for itself, and chooses where the command runs."""
    said: list[str] = []
    errors: list[str] = []
    run_tool(_sh("pwd; echo two >&2; echo three"), output=said.append, errors=errors.append, folder=Path("/"))
    assert (said, errors) == (["/", "three"], ["two"])


def test_a_check_stops_it() -> None:
    """What the check raises is raised, and the command is gone."""
    said: list[str] = []

    def check() -> None:
        if said:
            raise CancelledError("go on", reason="enough was said")

    with pytest.raises(CancelledError, match="enough"):
        run_tool(_sh("echo $$; sleep 60"), output=said.append, check=check)
    assert not is_running(int(said[0]))


def test_environment_is_given() -> None:
    """The command has the environment that it is given, and no other."""
    said: list[str] = []
    run_tool(_sh("echo $WHAT-$HOME"), output=said.append, environ={"WHAT": "this"})
    assert said == ["this-"]


@pytest.mark.parametrize("script", ["echo ready; sleep 60", _DEAF])
def test_cancelled_command_stops(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation stops the command and what it started; those that are deaf to SIGTERM are killed."""
    monkeypatch.setattr("prebuilt.core.tool_process._PATIENCE_S", 0.5)
    cancellation, pids = Cancellation(), list[int]()

    def hear(line: str) -> None:
        if line == "ready":
            cancellation.cancel()
        else:
            pids.append(int(line))

    began_s = time.monotonic()
    with pytest.raises(CancelledError):
        run_tool(_sh(f"echo $$; {script}"), output=hear, check=cancellation.check)
    assert time.monotonic() - began_s < 40
    eventually_gone(lambda: is_running(pids[0]))


def test_cancelled_before_it_starts(tmp_path: Path) -> None:
    """Nothing is started when the work is already cancelled."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        run_tool(["touch", str(tmp_path / "made")], output=print, check=cancellation.check)
    assert not (tmp_path / "made").exists()


def test_time_is_up() -> None:
    """A command that takes too long is stopped, asked first; what it says then is heard."""
    said: list[str] = []
    ready, checks = threading.Event(), itertools.count()

    def hear(line: str) -> None:
        said.append(line)
        ready.set()

    def check() -> None:
        if next(checks):  # the first one comes before the command
            ready.wait(60)

    script = "trap 'echo stopping; exit 0' TERM; echo ready; while :; do :; done"
    assert run_tool(_sh(script), output=hear, check=check, timeout_s=0.5) is None
    assert said == ["ready", "stopping"]


@pytest.mark.parametrize("where", ["stdin", "output"])
def test_failures_beside_it_stop_it(where: str) -> None:
    """An error of what feeds or hears it stops the command, and is what is raised."""

    def fail(*_: str) -> Iterator[bytes]:
        raise ValueError(where)
        yield b""

    def hear(line: str) -> None:
        next(fail(line))

    began_s = time.monotonic()
    with pytest.raises(ValueError, match=where):
        if where == "stdin":
            run_tool(_sh("sleep 60"), output=print, stdin=fail())
        else:
            run_tool(_sh("echo; sleep 60"), output=hear)
    assert time.monotonic() - began_s < 40


def test_children_that_stay_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the command leaves behind with its output open does not hold us up."""
    monkeypatch.setattr("prebuilt.core.tool_process._PATIENCE_S", 0.3)
    said: list[str] = []
    assert run_tool(_sh("sleep 60 & echo $!"), output=said.append) == 0
    eventually_gone(lambda: is_running(int(said[0])))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_when_we_are_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGKILL of this process end the command; the folders that were named are gone after SIGKILL, too."""
    program = """
        import sys, tempfile
        from pathlib import Path
        from prebuilt.core.tool_process import run_tool
        with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
            Path(folder, "config.json").write_text("{}")
            said = []
            def check():
                if said:  # it runs, and is waited for
                    print(said.pop(), flush=True)
            run_tool(["/bin/sh", "-c", "echo $$; exec sleep 60"], output=said.append, check=check, remove=[Path(folder)])
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        client.send_signal(number)
    eventually_gone(lambda: is_running(pid))
    eventually_gone(lambda: list(tmp_path.iterdir()))


@pytest.mark.parametrize(("number", "is_gone"), [(signal.SIGKILL, True), (0, False)])
def test_folders_of_work_without_a_command(number: int, tmp_path: Path, *, is_gone: bool) -> None:
    """They are removed where this process is killed, and are the caller's where it is not."""
    folder = tmp_path / "folder"
    folder.mkdir()
    program = """
        import sys
        from pathlib import Path
        from prebuilt.core.tool_process import removed_if_killed
        with removed_if_killed(Path(sys.argv[1])):
            print("ready", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(number)
        client.communicate()
    if is_gone:
        eventually_gone(folder.exists)
    else:
        assert folder.exists()


def test_folders_stay_when_all_is_well(tmp_path: Path) -> None:
    """A command that ends leaves the named folders to the caller."""
    assert run_tool(["true"], output=print, remove=[tmp_path]) == 0
    assert tmp_path.exists()


def test_absent_command_is_said() -> None:
    """A command that cannot be run is an EngineError that names it."""
    for call in (lambda: run_tool(["/nowhere/docker"], output=print), lambda: ask_tool(["/nowhere/docker"])):
        with pytest.raises(EngineError, match="run docker: No such file"):
            call()


def test_short_commands_answer() -> None:
    """A question has an exit status and two streams, and ends in time."""
    answer = ask_tool(_sh("echo out; echo err >&2; exit 2"))
    assert (answer.status, answer.stdout, answer.stderr) == (2, "out\n", "err\n")
    with pytest.raises(EngineError, match="did not answer in 0 s"):
        ask_tool(["sleep", "10"], timeout_s=0.1)
