"""Waiting is not for ever, and says what was waited for."""

from __future__ import annotations

import pytest

from prebuilt.testing.waiting import eventually, eventually_gone


def test_what_is_seen_is_returned():
    """It is looked for until it is there."""
    looks = iter([None, [], "here"])
    assert eventually(lambda: next(looks)) == "here"


def test_what_never_comes():
    """The error tells what was said meanwhile."""
    with pytest.raises(AssertionError, match=r"nothing within 0\.1 s: no news"):
        eventually(list, within_s=0.1, said=lambda: "no news")
    with pytest.raises(AssertionError, match=r"nothing within 0\.1 s$"):
        eventually(list, within_s=0.1)


def test_what_goes():
    """It is looked for until it is gone."""
    left = [1, 2]
    eventually_gone(lambda: left and left.pop())
    assert left == []


def test_what_stays():
    """The error shows it."""
    with pytest.raises(AssertionError, match=r"nothing within 0\.1 s: there is still \['a file'\]"):
        eventually_gone(lambda: ["a file"], within_s=0.1)
