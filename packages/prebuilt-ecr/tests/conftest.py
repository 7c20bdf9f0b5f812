"""Amazon ECR for tests: moto's API and a real registry behind the real host names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.oci.transport import close_connections
from prebuilt.testing.amazon_ecr import AmazonECR, amazon_ecr
from prebuilt.testing.user_settings import forget_user_settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what users have configured out of the tests."""
    forget_user_settings(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "metaflow"))


@pytest.fixture(scope="session")
def running_amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmazonECR]:
    """Give one for all tests: moto takes a second to import."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget_user_settings(monkeypatch)
        with amazon_ecr(tmp_path_factory.mktemp("amazon")) as amazon:
            monkeypatch.undo()
            yield amazon


@pytest.fixture
def amazon(running_amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> Iterator[AmazonECR]:
    """Give an empty one that this process finds, with credentials that may do everything."""
    running_amazon.reset()
    for name, value in running_amazon.environ.items():
        monkeypatch.setenv(name, value)
    yield running_amazon
    close_connections()
