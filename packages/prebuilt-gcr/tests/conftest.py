"""Google Cloud for tests: its APIs and a registry behind the real host names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.oci.transport import close_connections
from prebuilt.testing.google_cloud import HOST, GoogleCloud, google_cloud
from prebuilt.testing.user_settings import forget_user_settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what users have configured out of the tests."""
    forget_user_settings(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "none"))


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleCloud]:
    """Give an empty one that this process finds, with a service account's key."""
    with google_cloud(tmp_path) as cloud:
        for name, value in cloud.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", HOST)
        yield cloud
        close_connections()
