"""What is mounted on this machine: engines leave mounts behind, and a folder with one cannot be removed."""

from __future__ import annotations

import subprocess
from pathlib import Path


def mounted_below(folder: Path) -> list[Path]:
    """Return the mount points in `folder`, not itself, in the order in which they were mounted. Source: proc_pid_mountinfo(5)."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]  # a space is \040 there
    return [point for point in points if folder in point.parents]


def unmount_below(folder: Path) -> None:
    """Unmount all that is mounted in `folder`, the last first, also where it is in use still."""
    for point in reversed(mounted_below(folder)):
        subprocess.run(["umount", "--lazy", point], check=True)
