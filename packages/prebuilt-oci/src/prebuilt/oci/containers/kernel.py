"""What the kernel did not allow, in words: from the step and errno of a failed container to its cause and remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from prebuilt.core.errors import ContainerError

_OTHER_ENGINE = "or use Docker or Podman (METAFLOW_PREBUILT_CONTAINER_ENGINE)"
_OLDEST = (5, 12)  # mount_setattr; overlay mounts of ordinary users came with 5.11
_NO_UPPER = {"overlay", "nfs", "nfs4", "cifs", "9p", "virtiofs", "vfat", "exfat", "zfs", "fuse"}
_DENIED = {errno.EPERM, errno.EACCES}

# What makes user namespaces impossible: file, its value, the cause, the remedy. All need root, once.
_SWITCHES = (
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor keeps ordinary users from making namespaces (Ubuntu 23.10 and newer)",
        "have root run: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "this kernel keeps ordinary users from making namespaces",
        "have root run: sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "this machine allows no user namespaces",
        "have root run: sysctl -w user.max_user_namespaces=10000",
    ),
)


def setup_error(report: Mapping[str, object], scratch: Path) -> ContainerError:
    """Return the error for a report of the launcher: ``step`` and ``errno``; `scratch` is where the container would have written."""
    step, number = str(report["step"]), int(str(report["errno"]))
    reason, remedy = _cause(step, number, scratch)
    return ContainerError("start a container without root", reason=f"could not {step} ({reason})", remedy=remedy)


def _cause(step: str, number: int, scratch: Path) -> tuple[str, str]:
    said = os.strerror(number)
    if _release() < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return f"{said}; Linux is {os.uname().release}, {oldest} is needed", f"update it, {_OTHER_ENGINE}"
    if number in _DENIED | {errno.ENOSPC, errno.EINVAL} and ("namespace" in step or step.startswith("mount")):
        for path, value, cause, remedy in _SWITCHES:
            if _read(path) == value and (os.geteuid() != 0 or "max_user" in path):
                return cause, f"{remedy}, {_OTHER_ENGINE}"
    if step.startswith("mount overlay"):
        return _overlay_cause(number, scratch)
    if step == "mount proc on /proc" and number in _DENIED:
        return (
            f"{said}: parts of /proc are hidden, as inside another container",
            "give that container its whole /proc (--privileged)",
        )
    if number in _DENIED and ("namespace" in step or step.startswith("mount")):
        return f"{said}: forbidden here, as inside most containers", f"run outside of them, {_OTHER_ENGINE}"
    return said, ""


def _overlay_cause(number: int, scratch: Path) -> tuple[str, str]:
    kind = file_system(scratch)
    if number == errno.ENODEV:
        return "this kernel has no overlay file system", f"have root run: modprobe overlay, {_OTHER_ENGINE}"
    if kind in _NO_UPPER or kind.startswith("fuse."):
        return (
            f"{scratch} is on {kind}, which cannot be written through an overlay mount",
            "set METAFLOW_PREBUILT_CACHE_DIR to a folder on a local disk (ext4, xfs, btrfs)",
        )
    return f"{os.strerror(number)}; {scratch} is on {kind}", "the kernel's log (dmesg) says more"


def file_system(path: Path) -> str:
    """Return the type of the file system that holds `path`: ``ext4``.

    Source: proc_pid_mountinfo(5)
    """
    best, kind = "", "unknown"
    real = f"{os.path.realpath(path)}/"
    for line in (_read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape").rstrip("/") + "/"
        if real.startswith(point) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def _release() -> tuple[int, ...]:
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(n) for n in numbers if n.isdigit())


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
