"""The registry ``local``, by its addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.settings import Settings
from prebuilt.docker import LocalRegistry
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.registry import InMemoryRegistry

PUSH = "METAFLOW_PREBUILT_LOCAL_REGISTRY_PUSH"


class TestLocalRegistry(RegistryContract):
    """Every clause of the contract, over HTTP."""

    @pytest.fixture
    def new_registry(self) -> Iterator[Callable[[], ImageRegistry]]:
        """Return what makes registries that use a server on loopback."""
        with InMemoryRegistry() as server:
            settings = Settings({PUSH: server.host}, {})
            yield lambda: LocalRegistry(settings)

    @pytest.fixture
    def broken_registry(self) -> ImageRegistry:
        """Return one whose host refuses connections."""
        return LocalRegistry(Settings({PUSH: "127.0.0.1:1"}, {}))
