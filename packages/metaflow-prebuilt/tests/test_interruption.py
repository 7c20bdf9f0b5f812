"""Ctrl-C while a flow is deployed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from metaflow_extensions.prebuilt.deploy.interruption import at_once_the_second_time

_IMPATIENT = """
import os, signal, time
from metaflow_extensions.prebuilt.deploy.interruption import at_once_the_second_time
try:
    with at_once_the_second_time():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(50)
finally:
    print("stopping", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here")
"""


def test_the_first_one_is_raised():
    """What is in the body sees it as ever."""
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), at_once_the_second_time():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_second_one_ends_the_process():
    """Nobody waits for threads that wait for a server."""
    done = subprocess.run([sys.executable, "-c", _IMPATIENT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "stopping\n")


def test_a_deaf_process_stays_deaf():
    """What a script starts in the background is not for Ctrl-C to end."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with at_once_the_second_time():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_afterwards_all_is_as_before():
    """A body that came to its end leaves no handler; in threads, which get no Ctrl-C, there is none to set."""
    before = signal.getsignal(signal.SIGINT)

    def deploy():
        with at_once_the_second_time():
            assert signal.getsignal(signal.SIGINT) is before

    thread = threading.Thread(target=deploy)
    thread.start()
    thread.join()
    with at_once_the_second_time():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
