"""Podman with images and containers of its own, which needs no daemon."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/runs"
"""


@contextlib.contextmanager
def podman_storage(folder: Path) -> Iterator[Mapping[str, str]]:
    """Give the variables that have Podman keep everything below the folder `folder`; what it keeps is removed afterwards."""
    storage = folder / "storage.conf"
    storage.write_text(_STORAGE.format(folder=folder), encoding="utf-8")
    variables = {"CONTAINERS_STORAGE_CONF": str(storage)}
    try:
        yield variables
    finally:
        if (folder / "images").exists():
            subprocess.run(
                ["podman", "rmi", "--all", "--force"], check=True, capture_output=True, env=os.environ | variables
            )
        for mounted in (folder / "images" / "overlay", folder / "images"):  # Podman keeps its storage mounted on itself
            if mounted.is_mount():
                subprocess.run(["umount", mounted], check=True)
