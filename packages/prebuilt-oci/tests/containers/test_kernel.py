"""What the kernel did not allow is said in words that help."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from prebuilt.oci.containers import kernel
from prebuilt.oci.containers.kernel import file_system, setup_error

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel is Linux's")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Files of the kernel, to be made up by a test; and an ordinary user."""
    made: dict[str, str] = {}
    monkeypatch.setattr(kernel, "_read", made.get)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return made


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "max_user_namespaces=10000"),
    ],
)
def test_switches_are_named(files: dict[str, str], tmp_path: Path, path: str, value: str, said: str) -> None:
    """A switch that forbids namespaces is named with the command that changes it, and the other engines."""
    files[path] = value
    for step in ("make a user namespace", "map user ids into a user namespace", "mount nothing new on /"):
        text = str(setup_error({"step": step, "errno": errno.EPERM}, tmp_path))
        assert said in text
        assert "Docker or Podman" in text


def test_old_kernels_are_named(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails there, the version is the reason."""
    monkeypatch.setattr(kernel, "_release", lambda: (5, 10))
    assert "5.12 is needed" in str(setup_error({"step": "bind /sys", "errno": errno.ENOSYS}, tmp_path))


def test_file_systems_that_cannot_are_named(files: dict[str, str]) -> None:
    """Overlay on overlay, as inside a container, needs the cache elsewhere."""
    files["/proc/self/mountinfo"] = (
        "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /data rw - ext4 /dev/x rw\n3 1 0:3 / /with\\040space rw - tmpfs tmpfs rw\n"
    )
    report = {"step": "mount overlay on runs/1/root", "errno": errno.EINVAL}
    text = str(setup_error(report, Path("/cache/runs")))
    assert "is on overlay, which cannot be written through an overlay mount" in text
    assert "METAFLOW_PREBUILT_CACHE_DIR" in text
    assert "is on ext4" in str(setup_error(report, Path("/data/cache")))
    assert file_system(Path("/with space/x")) == "tmpfs"
    assert file_system(Path("/database")) == "overlay"


def test_hidden_proc_is_named(files: dict[str, str], tmp_path: Path) -> None:
    """A container around this one hides parts of /proc, and then nobody may mount another."""
    assert "--privileged" in str(setup_error({"step": "mount proc on /proc", "errno": errno.EPERM}, tmp_path))


def test_everything_else_is_said_as_the_system_says_it(files: dict[str, str], tmp_path: Path) -> None:
    """The step and the system's own words."""
    error = setup_error({"step": "bind /absent", "errno": errno.ENOENT}, tmp_path)
    assert str(error) == "tried to start a container without root: could not bind /absent (No such file or directory)"
