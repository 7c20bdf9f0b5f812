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
