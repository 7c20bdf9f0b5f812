"""How much memory a bake takes: however large packages are, and single files in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.peak_memory import PeakMemory

pytestmark = [pytest.mark.registry, pytest.mark.slow]

MOST_BYTES = 400_000_000
HUGE_BYTES = 450_000_000
"""Of one file: more than all processes may hold at once."""


def test_memory_is_bounded(tmp_path: Path, make_bakery: Callable[..., Any], pantry: Any) -> None:
    """700 MB of packages, one of which is a single file of 450 MB, go to a registry through less than 400 MB of all processes."""
    lines = b"".join(b"%06d: a line that compresses well\n" % number for number in range(1000))
    pantry.add_wheel("huge", files={"huge/table.txt": lines * (HUGE_BYTES // len(lines))})
    packages = ["huge", *(f"noise{number}" for number in range(8))]
    for name in packages[1:]:
        pantry.add_wheel(name, size_bytes=30_000_000, compressed=False)
    with wanted_engine(), distribution_registry(tmp_path / "registry") as host:
        bakery = make_bakery(tmp_path / "machine", f"{host}/large")
        process = bakery.start(pypi=dict.fromkeys(packages, "1.0"), index=pantry.index.url)
        memory = PeakMemory(process.pid)
        try:
            image = bakery.finish(process)
        finally:
            peak_bytes = memory.stop()
        assert {package.name for package in image.lock.packages} >= set(packages)
    assert MOST_BYTES / 20 < peak_bytes < MOST_BYTES
