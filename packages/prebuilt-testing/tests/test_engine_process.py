"""Servers that tests start as processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from prebuilt.testing.engines.process import EngineError, free_port, running
from prebuilt.testing.processes import is_running
from prebuilt.testing.waiting import eventually_gone

# The server is ready once it runs itself: what binds it to its parent has been told to the kernel by then.
KILLED = """
import os, pathlib, signal, sys
from prebuilt.testing.engines.process import running
log = pathlib.Path(sys.argv[1])
with running(["sh", "-c", "echo up; exec sleep 60"], log=log, ready=lambda: log.read_text() == "up\\n") as server:
    print(server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_is_stopped_after_the_body(tmp_path: Path):
    """Also where the body fails."""
    with (
        pytest.raises(ValueError, match="mistake"),
        running(["sleep", "60"], log=tmp_path / "log", ready=lambda: True) as server,
    ):
        assert server.poll() is None
        raise ValueError("mistake")
    assert server.returncode == -signal.SIGTERM


@pytest.mark.skipif(shutil.which("setpriv") is None or sys.platform != "linux", reason="needs setpriv of util-linux")
def test_a_server_ends_with_the_tests_that_were_killed(tmp_path: Path):
    """A killed pytest leaves no daemon."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL, done.stderr
    eventually_gone(lambda: is_running(int(done.stdout)))


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path):
    """The end of what it said is in the error."""
    command = ["sh", "-c", "echo no such option; exit 3"]
    with (
        pytest.raises(EngineError, match=r"start sh: it ended with 3(.|\n)*no such option"),
        running(command, log=tmp_path / "log", ready=lambda: False, timeout_s=60),
    ):
        pytest.fail("it is not ready")


def test_a_port_is_given_once_and_only_if_it_is_free(monkeypatch: pytest.MonkeyPatch):
    """Neither a server that is there is met, nor one that is about to start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken, given, choice = listener.getsockname()[1], free_port(), secrets.choice
        first = iter([taken, given])
        monkeypatch.setattr(secrets, "choice", lambda ports: next(first, 0) or choice(ports))
        assert free_port() not in {taken, given}
        assert next(first, 0) == 0
