"""The rootless engine for a user who is not root, where the tests are run by root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.container, pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")]

NOBODY = 65534
TESTS = Path(__file__).parents[2] / "packages" / "prebuilt-oci" / "tests" / "containers"


def test_an_ordinary_user_runs_containers() -> None:
    """All that holds for root holds for a user without any right; to read this checkout is the only thing it is allowed beyond."""
    if os.geteuid() != 0:
        pytest.skip("the tests of prebuilt-oci have shown it: they were not run by root")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed: apt-get install util-linux")
    with tempfile.TemporaryDirectory(prefix="prebuilt-user-") as home:
        os.chown(home, NOBODY, NOBODY)
        done = subprocess.run(
            [
                *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
                *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
                *(
                    sys.executable,
                    "-B",
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    f"--basetemp={home}/pytest",
                    TESTS,
                ),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": home, "TMPDIR": home},
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout[-3000:]
