"""The BuildKit daemon that other tests stand on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prebuilt.testing.engines.buildkit import BuildKit, buildkit_daemon
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.image_tree import Tree
from prebuilt.testing.mounts import mounts_with
from prebuilt.testing.processes import commands_with

pytestmark = pytest.mark.buildkit


def test_two_stages_are_built_and_pushed(
    buildkit: BuildKit, registry_host: str, two_stages: Path, pushed_tree: Callable[..., Tree]
):
    """What it pushes is a sound image."""
    repository = f"{registry_host}/buildkit/built"
    command = [str(buildkit.buildctl), "--addr", buildkit.address, "build", "--frontend=dockerfile.v0"]
    folders = [f"--local=context={two_stages}", f"--local=dockerfile={two_stages}"]
    output = f"--output=type=image,name={repository}:built,push=true,compression=zstd,oci-mediatypes=true"
    done = subprocess.run([*command, *folders, output], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert pushed_tree(repository, "built")["opt/made"].kind == "file"


def test_nothing_is_left_behind(registry_host: str, tmp_path: Path):
    """No process and no mount of a daemon outlives it."""
    with wanted_engine(), buildkit_daemon(tmp_path / "daemon", registry=registry_host) as daemon:
        assert daemon.address.startswith("tcp://127.0.0.1:")
    assert mounts_with(str(tmp_path)) == []
    assert commands_with(str(tmp_path)) == []
