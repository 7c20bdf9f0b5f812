"""Amazon ECR for tests: moto's API and a real registry behind the real host names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.oci.transport import close_connections
from prebuilt.testing.amazon_ecr import AmazonECR, amazon_ecr


@pytest.fixture(scope="session")
def running_amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmazonECR]:
    """Give one for all tests: moto takes a second to import."""
    with amazon_ecr(tmp_path_factory.mktemp("amazon")) as amazon:
        yield amazon


@pytest.fixture
def amazon(running_amazon: AmazonECR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AmazonECR]:
    """Give an empty one that this process finds, with credentials that may do everything."""
    running_amazon.reset()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in running_amazon.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "metaflow"))
    yield running_amazon
    close_connections()
