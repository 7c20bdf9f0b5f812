"""What the cache keeps of engines."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from prebuilt.testing.engines.cache import engine_cache, kept


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("PREBUILT_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_engine_is_made_once(cache: Path):
    """Who asks again gets what is there."""

    def make(folder: Path) -> None:
        (folder / "program").write_text("made")

    folder = kept("engine-1.0", make)
    assert folder == cache / "engine-1.0" == engine_cache() / "engine-1.0"
    assert kept("engine-1.0", lambda _: pytest.fail("made again")) == folder
    assert (folder / "program").read_text() == "made"


def test_others_wait_until_it_is_whole():
    """Two that ask at once do not both make it, and neither sees half of it."""
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.1)
        (folder / "program").write_text("made")

    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append((kept("engine", make) / "program").exists())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert seen == [True] * 4


def test_what_failed_is_not_kept():
    """The next one starts from an empty folder."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        kept("engine", fail)
    assert list(kept("engine", lambda folder: (folder / "whole").touch()).iterdir()) == [
        engine_cache() / "engine/whole"
    ]
