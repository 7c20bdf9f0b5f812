"""Google Cloud for tests: its APIs and a registry behind the real host names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.oci.transport import close_connections
from prebuilt.testing.google_cloud import HOST, GoogleCloud, google_cloud


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleCloud]:
    """Give an empty one that this process finds, with a service account's key."""
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "GCE_METADATA_HOST", "GCE_METADATA_IP", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with google_cloud(tmp_path) as cloud:
        for name, value in {**cloud.environ, "HOME": str(tmp_path), "METAFLOW_HOME": str(tmp_path / "none")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", HOST)
        yield cloud
        close_connections()
