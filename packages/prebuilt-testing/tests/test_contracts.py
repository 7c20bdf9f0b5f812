"""The written contracts and the suites say the same."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from prebuilt.testing.conformance import BuilderContract, RegistryContract

WRITTEN = Path(__file__).resolve().parents[3] / "docs" / "reference" / "contracts.md"


@pytest.mark.parametrize(("suite", "letter"), [(BuilderContract, "B"), (RegistryContract, "R")])
def test_each_clause_is_held_by_one_test(suite: type, letter: str) -> None:
    """Number and text of each clause are those of a test, in the same order, without a gap."""
    text = WRITTEN.read_text(encoding="utf-8")
    written = [
        f"{number}: {clause}" for number, clause in re.findall(rf"^\* \*\*({letter}-\d+)\*\* (.+)$", text, re.MULTILINE)
    ]
    tests = [test for name, test in vars(suite).items() if name.startswith("test_")]
    assert [" ".join((inspect.getdoc(test) or "").split()) for test in tests] == written
    assert [clause.split(":")[0] for clause in written] == [f"{letter}-{n}" for n in range(1, len(written) + 1)]
