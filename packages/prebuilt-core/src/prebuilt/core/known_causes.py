"""Known causes of failures: what gives one away in what a tool says, and what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCause:
    """A cause of failures.

    Attributes:
        known_by: Found in what a tool says of its failure.
        remedy: What to do; it may name fields in braces.
        is_of_steps: Whether it is known by what a step of the build says, too. What steps say of logins and addresses is about
            package indexes, and not about the registry.
    """

    known_by: re.Pattern[str]
    remedy: str
    is_of_steps: bool = False


def known_cause(known_by: str, remedy: str, *, is_of_steps: bool = False) -> KnownCause:
    """Return a cause that is known by a regular expression, in which case does not matter."""
    return KnownCause(known_by=re.compile(known_by, re.IGNORECASE), remedy=remedy, is_of_steps=is_of_steps)


def find_remedy(causes: Sequence[KnownCause], said: str, lines: Iterable[str], **fields: str) -> str:
    """Return the remedy of the first cause that the tool names, or else of the first that a step names; empty if none is known.

    Args:
        causes: Those that are more particular come first.
        said: What the tool says of its failure.
        lines: What steps say, too.
        fields: What remedies name in braces.
    """
    of_steps = [cause for cause in causes if cause.is_of_steps]
    for text, among in (said, causes), ("\n".join(lines), of_steps):
        for cause in among:
            if cause.known_by.search(text):
                return cause.remedy.format(**fields)
    return ""
