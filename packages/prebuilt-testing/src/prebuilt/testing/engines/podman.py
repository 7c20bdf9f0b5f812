"""Podman with images and containers of its own, which needs no daemon."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from prebuilt.testing.mounts import unmount_below

_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/runs"
"""


@contextlib.contextmanager
def podman_storage() -> Iterator[Mapping[str, str]]:
    """Give the variables that have Podman keep everything in a folder of its own; all that it keeps is removed afterwards.

    The folder is none of pytest's: Podman mounts its storage on itself, and what a killed run leaves mounted would fail the later
    runs that tidy up.
    """
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="prebuilt-podman-", ignore_cleanup_errors=True))
        folder = Path(name)
        stack.callback(unmount_below, folder)
        storage = folder / "storage.conf"
        storage.write_text(_STORAGE.format(folder=folder), encoding="utf-8")
        variables = {"CONTAINERS_STORAGE_CONF": str(storage)}
        stack.callback(_clear, folder, variables)
        yield variables


def _clear(folder: Path, variables: Mapping[str, str]) -> None:
    """Remove containers and images: they are mounted where a test failed."""
    if (folder / "images").exists():
        for what in ("rm", "rmi"):
            subprocess.run(
                ["podman", what, "--all", "--force"], check=True, capture_output=True, env=os.environ | variables
            )
