"""What holds for every test of the repository."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest

from tools import engines

_NOT_ASKED = "not asked of this"  # … builder, registry, machine: how prebuilt.testing.conformance begins, too
_ROOT = Path(__file__).parent
_ENGINES = frozenset(engines.marked(_ROOT))


def pytest_configure() -> None:
    """Hear Ctrl-C: a run that a script started in the background ignores it, and so would all that tests start.

    Servers that tests start are reached directly, whatever proxy this machine has.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if urllib.request.getproxies_environment():
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), "localhost,127.0.0.1,::1")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An integration test without an engine's marker would be of no session, and run nowhere."""
    for item in items:
        if item.path.is_relative_to(_ROOT / "tests" / "integration") and not _wants_engine(item):
            raise pytest.UsageError(f"{item.nodeid} has no engine's marker: {', '.join(engines.marked(_ROOT))}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where engines must be there, a test that skips for want of one fails; clauses that do not apply are skipped anywhere."""
    report = yield
    lacks_engine = _wants_engine(item) and _NOT_ASKED not in str(report.longrepr)
    if report.skipped and lacks_engine and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"under CI nothing is skipped for want of an engine: {report.longrepr}"
    return report


def _wants_engine(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(engine) for engine in _ENGINES)
