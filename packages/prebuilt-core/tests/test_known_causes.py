"""Known causes: which one is found in what a tool says."""

from __future__ import annotations

import pytest

from prebuilt.core.known_causes import find_remedy, known_cause

CAUSES = (
    known_cause(r"disk is full", "free space on {host}", is_of_steps=True),
    known_cause(r"401|unauthorized", "log in to {host}"),
    known_cause(r"401", "never said: another comes first"),
)


@pytest.mark.parametrize(
    ("said", "lines", "remedy"),
    [
        ("it answered 401", [], "log in to r.example"),
        ("UNAUTHORIZED", [], "log in to r.example"),
        ("the Disk is Full", [], "free space on r.example"),
        ("a step failed", ["#7 1.2 write: disk is full", "#7 done"], "free space on r.example"),
        ("it answered 401", ["disk is full"], "log in to r.example"),
        ("a step failed", ["the index answered 401"], ""),
        ("", [], ""),
    ],
)
def test_the_first_cause_that_the_tool_names(said: str, lines: list[str], remedy: str) -> None:
    """What the tool itself says comes first; what steps say of logins is about package indexes, and is not looked at."""
    assert find_remedy(CAUSES, said, lines, host="r.example") == remedy
