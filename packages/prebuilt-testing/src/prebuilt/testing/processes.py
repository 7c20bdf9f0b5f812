"""The processes of this machine, as Linux lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def command_lines() -> Iterator[tuple[int, list[str]]]:
    """Yield id and arguments of every process; those of the kernel have none, and are left out as those that have just ended."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it ended just now
            continue
        if line:
            yield int(path.parent.name), line.decode(errors="replace").removesuffix("\0").split("\0")


def commands_with(text: str) -> list[str]:
    """Return the command lines of other processes than this one that have `text` in them."""
    lines = ((pid, " ".join(line)) for pid, line in command_lines())
    return [line for pid, line in lines if text in line and pid != os.getpid()]


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie, which is told from others on Linux only."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it went just now, or this is no Linux
        return not Path("/proc/self").exists()
