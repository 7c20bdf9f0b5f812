"""A Python that this machine lacks, for compiling: it comes from the channel, once."""

import sys
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import BuildError
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.settings import Settings
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.conda_interpreters import CondaInterpreters
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.lock.resolver import LockResolver
from prebuilt.testing.conda_channel import CondaChannel, build_channel, serve_channel
from prebuilt.testing.conda_python import dummy_python_package

OWN = "{}.{}".format(*sys.version_info)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the channel's Python is made of Linux's")


@pytest.fixture
def notes() -> list[str]:
    """What the user was told."""
    return []


def interpreters(tmp_path: Path, notes: list[str], channel: str) -> CondaInterpreters:
    """Return those of a channel, for a machine with an empty cache."""
    settings = Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}, {})
    locks = Locks(
        resolver=LockResolver(settings),
        documents=FolderDocuments(tmp_path / "documents"),
        progress=LineProgress(notes.append),
    )
    return CondaInterpreters(settings=settings, locks=locks, channels=(channel,))


def test_it_compiles_as_any_other(channel: CondaChannel, tmp_path: Path, notes: list[str]):
    """The bytes are those of the machine's own; the second use asks nobody."""
    progress = LineProgress(notes.append).image("step")
    with serve_channel(channel) as served:
        pythons = interpreters(tmp_path, notes, served.url)
        assert pythons.can_get(OWN)
        assert not (tmp_path / "cache" / "interpreters").exists()
        python = pythons.get(OWN, progress, Cancellation())
        asked = len(served.requests)
        assert interpreters(tmp_path, notes, served.url).get(OWN, progress, Cancellation()) == python
        assert len(served.requests) == asked
    own = find_interpreter(OWN)
    assert own is not None
    made = []
    for each in (python, own):
        with BytecodeCompiler(each, OWN, workers=1) as compiler:
            made.append(compiler.submit(b"x = 1\n", "/opt/prebuilt/env/x.py").result())
    assert made[0] == made[1] != b""


def test_one_that_no_channel_has_is_told_of(channel: CondaChannel, tmp_path: Path, notes: list[str]):
    """The line says what follows of it, and what helps."""
    assert not interpreters(tmp_path, notes, channel.url).can_get("3.99")
    (note,) = notes
    assert "images with Python 3.99 get no bytecode" in note
    assert "uv python install 3.99" in note


def test_one_that_does_not_run_is_an_error(tmp_path: Path, notes: list[str]):
    """It is not used for an image that is said to have bytecode."""
    channel = build_channel(tmp_path / "dummies", [dummy_python_package("3.99.1", Platform.host().subdir)])
    pythons = interpreters(tmp_path, notes, channel.url)
    with pytest.raises(BuildError, match=r"3\.99.*does not run on this machine; install one"):
        pythons.get("3.99", LineProgress(notes.append).image("step"), Cancellation())
