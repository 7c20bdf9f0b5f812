"""The builder ``__name__``."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from prebuilt.__name__ import __Title__BuildService
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.testing.conformance import BuilderContract
from prebuilt.testing.engines.wanted import wanted_program

_RECORDS = '#!/bin/sh\necho "$@" > "$RECORD"\ncat > "$RECORD.tar"\necho pushed\n'
_FAILS = "#!/bin/sh\ncat > /dev/null\necho 'no space left' >&2\nexit 1\n"


class Test__Title__BuildService(BuilderContract):
    """Every clause of the contract, where the command is installed. What it can do beyond them is claimed by attributes."""

    @pytest.fixture
    def new_builder(self) -> type[__Title__BuildService]:
        """Give the class."""
        wanted_program("__name__", brought_by="its own installer")
        return __Title__BuildService


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a test writes what stands for the command."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    program = tmp_path / "__name__"
    program.touch(mode=0o755)
    return program


def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_BUILD_SERVICE=__name__ selects it."""
    assert isinstance(BUILD_SERVICES.get("__name__"), __Title__BuildService)


def test_builds_for_the_target(command: Path) -> None:
    """The command gets the tag, the platform, and the Dockerfile with its context; what it says is passed on."""
    command.write_text(_RECORDS)
    said: list[str] = []
    files = {"folder/file": "text"}
    assert __Title__BuildService().build_and_push("FROM scratch", files, "r/i:t", {}, said.append, "linux/arm64")
    assert said == ["pushed"]
    record = command.with_name("record")
    assert "--tag r/i:t --platform linux/arm64 -" in record.read_text()
    with tarfile.open(f"{record}.tar") as context:
        assert context.getnames() == ["Dockerfile", "folder", "folder/file"]


def test_says_why_it_failed(command: Path) -> None:
    """A failed command is False, and what it said is passed on."""
    command.write_text(_FAILS)
    said: list[str] = []
    assert not __Title__BuildService().build_and_push("FROM scratch", {}, "r/i:t", {}, said.append)
    assert said == ["no space left"]


def test_a_command_that_is_missing_is_named(command: Path) -> None:
    """It is False, and the message says what could not be run."""
    command.unlink()
    said: list[str] = []
    assert not __Title__BuildService().build_and_push("FROM scratch", {}, "r/i:t", {}, said.append)
    assert "__name__" in said[0]
