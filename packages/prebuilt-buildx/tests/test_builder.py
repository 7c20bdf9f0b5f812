"""The builder ``buildx``."""

from __future__ import annotations

from pathlib import Path

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.plugins import BUILD_SERVICES

_RECORDS = '#!/bin/sh\necho "$@" > "$RECORD"\nfor folder; do :; done\ncat "$folder/Dockerfile" >> "$RECORD"\n'
_FAILS = "#!/bin/sh\necho 'no space left' >&2\nexit 1\n"


def _command(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "buildx"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_BUILD_SERVICE=buildx selects it."""
    assert isinstance(BUILD_SERVICES.get("buildx"), BuildxBuildService)


def test_builds_for_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command gets the tag, the platform and a folder with the Dockerfile in it."""
    _command(tmp_path, _RECORDS, monkeypatch)
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    assert BuildxBuildService().build_and_push("FROM scratch", {}, "r/i:t", {}, print, "linux/arm64")
    recorded = (tmp_path / "record").read_text()
    assert "--tag r/i:t --platform linux/arm64" in recorded
    assert recorded.endswith("FROM scratch")


def test_says_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed command is False, and its last words are passed on."""
    _command(tmp_path, _FAILS, monkeypatch)
    said: list[str] = []
    assert not BuildxBuildService().build_and_push("FROM scratch", {}, "r/i:t", {}, said.append)
    assert said == ["no space left"]
