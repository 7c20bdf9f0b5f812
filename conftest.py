"""What holds for every test of the repository."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tools import engines

_NOT_ASKED = "not asked of this"  # … builder, registry, machine: how prebuilt.testing.conformance begins, too
_ENGINES = frozenset(engines.marked(Path(__file__).parent))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where engines must be there, a test that skips for want of one fails; clauses that do not apply are skipped anywhere."""
    report = yield
    wants_engine = any(item.get_closest_marker(engine) for engine in _ENGINES) and _NOT_ASKED not in str(
        report.longrepr
    )
    if report.skipped and wants_engine and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"under CI nothing is skipped for want of an engine: {report.longrepr}"
    return report
