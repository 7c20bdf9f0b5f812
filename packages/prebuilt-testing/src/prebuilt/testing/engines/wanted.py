"""What a test needs and this machine may lack: the test is skipped, and the reason says how to get it.

Where everything must be there, under ``CI``, the repository's ``conftest.py`` makes failures of such skips.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from prebuilt.testing.engines.process import EngineError, find_program


@contextlib.contextmanager
def wanted_engine() -> Iterator[None]:
    """Skip the test if an engine that the body starts is not installed or does not start."""
    try:
        yield
    except EngineError as error:
        pytest.skip(str(error))


def wanted_program(name: str, *, brought_by: str) -> str:
    """Return the path of a program; skip the test if it is not installed. `brought_by` says how to get it."""
    with wanted_engine():
        return find_program(name, brought_by=brought_by)
