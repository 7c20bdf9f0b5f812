"""Missing engines skip tests, and say how to get them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.engines.wanted import wanted_engine, wanted_program


def test_a_missing_program_skips_with_what_brings_it() -> None:
    """The reason is one that a person can act upon."""
    with pytest.raises(pytest.skip.Exception, match="apt-get install it"):
        wanted_program("no-such-program", brought_by="apt-get install it")


def test_a_program_that_is_there_is_found() -> None:
    """Its path comes back."""
    name = Path(sys.executable).name
    assert Path(wanted_program(name, brought_by="luck")).name == name


def test_other_failures_are_failures() -> None:
    """Only an engine's absence is a reason to skip."""
    with pytest.raises(pytest.skip.Exception), wanted_engine():
        raise EngineError("start it", reason="it is broken")
    with pytest.raises(ValueError, match="mistake"), wanted_engine():
        raise ValueError("a mistake of the test")
