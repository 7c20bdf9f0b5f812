"""Settings, cache folder, atomic files, retry policy."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import CancelledError, SettingError, StorageError
from prebuilt.core.home import home_folder
from prebuilt.core.retry import Backoff, parse_retry_after, pause
from prebuilt.core.settings import Settings
from prebuilt.core.storage import atomic_file, cache_dir, read_if_there, scratch_folder, write_atomically


def settings(profile: dict[str, object] | None = None, **environ: str) -> Settings:
    """Return settings with these values."""
    return Settings({f"METAFLOW_{name}": value for name, value in environ.items()}, profile or {})


def test_the_environment_wins_over_the_profile() -> None:
    """Both forms of a name count in the profile; an empty value is none."""
    assert settings({"PREBUILT_X": "p"}, PREBUILT_X="e").get("PREBUILT_X") == "e"
    assert settings({"METAFLOW_PREBUILT_X": "p"}, PREBUILT_X="").get("PREBUILT_X") == "p"
    assert settings().get("PREBUILT_X", "d") == "d"


def test_the_profile_that_metaflow_would_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """METAFLOW_HOME and METAFLOW_PROFILE decide which file."""
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("METAFLOW_PROFILE", raising=False)
    assert Settings.load().get("PREBUILT_Q") is None
    (tmp_path / "config.json").write_text(json.dumps({"METAFLOW_PREBUILT_Q": "plain"}))
    (tmp_path / "config_dev.json").write_text(json.dumps({"PREBUILT_Q": 7}))
    assert Settings.load().get("PREBUILT_Q") == "plain"
    monkeypatch.setenv("METAFLOW_PROFILE", "dev")
    assert Settings.load().get("PREBUILT_Q") == "7"
    (tmp_path / "config_dev.json").write_text("{")
    with pytest.raises(SettingError, match=r"config_dev\.json"):
        Settings.load()


def test_the_projects_configuration_is_stronger_than_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metaflow reads the file in the nearest folder .metaflow, too, of the working folder or above it."""
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("METAFLOW_PROFILE", raising=False)
    (tmp_path / "config.json").write_text(json.dumps({"METAFLOW_PREBUILT_Q": "profile", "METAFLOW_PREBUILT_R": "r"}))
    project = tmp_path / "project" / ".metaflow" / "config.json"
    project.parent.mkdir(parents=True)
    project.write_text(json.dumps({"METAFLOW_PREBUILT_Q": "project"}))
    flows = tmp_path / "project" / "flows"
    flows.mkdir()
    monkeypatch.chdir(flows)
    assert Settings.load().get("PREBUILT_Q") == "project"
    assert Settings.load().get("PREBUILT_R") == "r"
    monkeypatch.setenv("METAFLOW_PREBUILT_Q", "environment")
    assert Settings.load().get("PREBUILT_Q") == "environment"
    project.write_text("{")
    with pytest.raises(SettingError, match=r"project's configuration at .*\.metaflow/config\.json"):
        Settings.load()


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("YES", True), ("off", False), ("", False)])
def test_switches_are_read_as_documented(value: str, expected: bool) -> None:  # noqa: FBT001
    """An empty environment variable switches off."""
    assert settings(PREBUILT_S=value).flag("PREBUILT_S", default=not expected) is expected


def test_malformed_settings_are_named() -> None:
    """Each reader says which setting has which bad value."""
    bad = settings(PREBUILT_S="maybe")
    for read in (
        lambda: bad.flag("PREBUILT_S", default=True),
        lambda: bad.positive_int("PREBUILT_S", default=1),
        lambda: bad.choice("PREBUILT_S", ("a", "b"), default="a"),
    ):
        with pytest.raises(SettingError, match=r"METAFLOW_PREBUILT_S.*'maybe'"):
            read()
    with pytest.raises(SettingError, match=r"METAFLOW_PREBUILT_MISSING.*registry needs it"):
        bad.require("PREBUILT_MISSING", why="the registry needs it")
    with pytest.raises(SettingError, match="'0'"):
        settings(PREBUILT_N="0").positive_int("PREBUILT_N", default=1)
    assert settings(PREBUILT_N="3").positive_int("PREBUILT_N", default=1) == 3


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The setting wins, then the platform's convention."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_dir(settings(PREBUILT_CACHE_DIR=str(tmp_path / "c"))) == tmp_path / "c"
    assert cache_dir(settings()) == tmp_path / "metaflow-prebuilt"


def test_a_user_without_a_home_is_told_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images run as a number that no /etc/passwd knows, and some clear the environment."""
    assert home_folder({"HOME": "/h"}) == Path("/h")
    monkeypatch.delenv("HOME")
    assert home_folder({}) == Path.home()  # of /etc/passwd
    monkeypatch.setattr(os, "getuid", lambda: 3_987_654_321)
    monkeypatch.delenv("METAFLOW_HOME", raising=False)
    for ask in (lambda: home_folder({}), Settings.load):
        with pytest.raises(SettingError, match=r"HOME: it is not set, and .* number 3987654321; set it to a folder"):
            ask()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """The file appears whole or not at all."""
    path = tmp_path / "f"
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [child.name for child in tmp_path.iterdir()] == ["f"]
    assert read_if_there(path) == b"old"
    assert read_if_there(tmp_path / "absent") is None


def test_others_can_read_a_shared_cache(tmp_path: Path) -> None:
    """Files are readable by all, whatever the writer's umask."""
    write_atomically(tmp_path / "f", b"x")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


def test_storage_failures_say_what_to_do(tmp_path: Path) -> None:
    """A folder that cannot be made, and a full disk, name the place and the reason."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"write x.*METAFLOW_PREBUILT_CACHE_DIR.* to a folder"):
        write_atomically(tmp_path / "file" / "x", b"")
    with pytest.raises(StorageError, match=r"read x.*METAFLOW_PREBUILT_CACHE_DIR.* to a folder"):
        read_if_there(tmp_path / "file" / "x")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has /dev/full")
    with (
        pytest.raises(StorageError, match=r"No space left.*METAFLOW_PREBUILT_CACHE_DIR"),
        atomic_file(tmp_path / "y"),
        full.open("wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_scratch_folders_are_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scratch folder is among the temporary files, and nothing of it stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder("x-") as folder:
        (folder / "file").write_bytes(b"x")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_full_temporary_folders_name_their_own_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache's setting would not help where temporary files have no room: TMPDIR does."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"make a temporary folder at .*/file: .*; set TMPDIR to") as caught:
        scratch_folder("x-").__enter__()
    assert "CACHE_DIR" not in str(caught.value)

    def none_is_writable() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_is_writable)
    with pytest.raises(StorageError, match=r"No usable temporary directory found; free some space, or set TMPDIR"):
        scratch_folder("x-").__enter__()


def test_waits_grow_with_jitter_up_to_a_limit() -> None:
    """Four waits for five attempts, each at most twice the one before."""
    assert list(Backoff(jitter=lambda: 1.0, limit_s=3).waits_s()) == [0.5, 1.0, 2.0, 3]
    assert list(Backoff(attempts=1).waits_s()) == []


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds or a date, however far off; nonsense is none."""
    assert parse_retry_after("7") == 7
    assert parse_retry_after("9999") == 9999
    soon = parse_retry_after(format_datetime(datetime.now(timezone.utc) + timedelta(minutes=10)))
    assert soon is not None
    assert 540 < soon <= 600
    late = parse_retry_after(format_datetime(datetime.now(timezone.utc) + timedelta(hours=6)))
    assert late is not None
    assert 6 * 3600 - 60 < late <= 6 * 3600
    assert parse_retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0
    assert parse_retry_after("soon") is None
    assert parse_retry_after("²") is None
    assert parse_retry_after(None) is None


def test_a_pause_ends_when_work_should_stop() -> None:
    """Whoever presses Ctrl-C does not wait until it is time for another try."""
    cancellation = Cancellation()
    pause(0.0, cancellation.check)
    threading.Timer(0.1, cancellation.cancel).start()
    with pytest.raises(CancelledError):
        pause(60.0, cancellation.check)
