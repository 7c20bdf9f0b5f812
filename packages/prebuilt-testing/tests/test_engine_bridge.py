"""Bridges of several tests at once leave the machine as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.testing.engines import bridge


@pytest.mark.parametrize("before", ["0\n", "1\n"])
def test_forwarding_is_set_back_by_the_last(before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ends first leaves it on for the others, whoever began first."""
    setting = tmp_path / "ip_forward"
    setting.write_text(before)
    monkeypatch.setattr(bridge, "_FORWARDING", setting)
    monkeypatch.setenv("PREBUILT_ENGINE_CACHE", str(tmp_path / "engines"))
    first, second = bridge._forwarding(), bridge._forwarding()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert setting.read_text() == "1"
    second.__exit__(None, None, None)
    assert setting.read_text() == before
