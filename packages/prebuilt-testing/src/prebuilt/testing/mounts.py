"""What is mounted on this machine: engines leave mounts behind, and a folder with one cannot be removed."""

from __future__ import annotations

import subprocess
from pathlib import Path


def mounted_below(folder: Path) -> list[Path]:
    """Return the mount points in `folder`, not itself, in the order in which they were mounted. Source: proc_pid_mountinfo(5)."""
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in _mounts()]  # a space is \040 there
    return [point for point in points if folder in point.parents]


def mounts_with(text: str) -> list[str]:
    """Return the mounts that have `text` in their descriptions, which name points, sources and options."""
    return [line for line in _mounts() if text in line]


def unmount_below(folder: Path) -> None:
    """Unmount all that is mounted in `folder`, the last first, also where it is in use still."""
    for point in reversed(mounted_below(folder)):
        subprocess.run(["umount", "--lazy", point], check=True)


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
