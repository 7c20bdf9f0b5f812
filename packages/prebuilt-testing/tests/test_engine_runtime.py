"""The runtime that takes away what a machine lacks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from prebuilt.testing.engines import runtime
from prebuilt.testing.engines.runtime import fitting_runtime


def test_it_is_runc_where_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine with all capabilities needs no help."""
    monkeypatch.setattr(runtime, "_missing_capabilities", list)
    assert fitting_runtime(tmp_path, Path("/usr/sbin/runc")) == Path("/usr/sbin/runc")


def test_missing_capabilities_leave_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A privileged container asks for all; runc is called with those that there are, and with the same arguments."""
    monkeypatch.setattr(runtime, "_missing_capabilities", lambda: ["CAP_SYS_RESOURCE", "CAP_BPF"])
    runc = tmp_path / "run c"
    runc.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    runc.chmod(0o755)
    wanted = {"bounding": ["CAP_BPF", "CAP_CHOWN", "CAP_SYS_RESOURCE"], "effective": ["CAP_BPF"]}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(wanted, separators=(",", ":")))
    command = [str(fitting_runtime(tmp_path, runc)), "create", "--bundle", str(tmp_path), "name"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == command[1:]
    assert json.loads(config.read_text()) == {"bounding": ["CAP_CHOWN"], "effective": []}
