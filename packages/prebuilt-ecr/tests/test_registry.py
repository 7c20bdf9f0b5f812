"""The registry ``ecr`` against moto's API and a real registry that takes the passwords that the API gave."""

from __future__ import annotations

import pytest

from prebuilt.core.image_registry import ImageRegistry
from prebuilt.ecr import ECRRegistry
from prebuilt.testing.amazon_ecr import AmazonECR
from prebuilt.testing.conformance import RegistryContract


@pytest.mark.usefixtures("amazon")
class TestECRRegistry(RegistryContract):
    """Every clause of the contract, over TLS, by the real host name."""

    @pytest.fixture
    def new_registry(self) -> type[ImageRegistry]:
        """Give the class."""
        return ECRRegistry

    @pytest.fixture
    def broken_registry(self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> ImageRegistry:
        """Give one whose host refuses connections."""
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        return ECRRegistry()
