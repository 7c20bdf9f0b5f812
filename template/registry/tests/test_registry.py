"""The registry ``__name__``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prebuilt.__name__ import __Title__Registry
from prebuilt.core.errors import SettingError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plugins import IMAGE_REGISTRIES
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.registry import InMemoryRegistry

SETTING = "METAFLOW_PREBUILT___NAME___REPOSITORY"


class Test__Title__Registry(RegistryContract):
    """Every clause of the contract, over HTTP."""

    @pytest.fixture
    def new_registry(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ImageRegistry]]:
        """Give the class, set up to use a registry on loopback."""
        with InMemoryRegistry() as server:
            monkeypatch.setenv(SETTING, f"{server.host}/team/flows")
            yield __Title__Registry

    @pytest.fixture
    def broken_registry(self, monkeypatch: pytest.MonkeyPatch) -> ImageRegistry:
        """Give one whose host refuses connections."""
        monkeypatch.setenv(SETTING, "127.0.0.1:1/team/flows")
        return __Title__Registry()


def test_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """METAFLOW_PREBUILT_IMAGE_REGISTRY=__name__ selects it, and images go where the setting says."""
    monkeypatch.setenv(SETTING, "registry.example.com/team/flows")
    registry = IMAGE_REGISTRIES.get("__name__")
    assert isinstance(registry, __Title__Registry)
    assert registry.repository == "registry.example.com/team/flows"


def test_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a repository, the error names the setting."""
    monkeypatch.delenv(SETTING, raising=False)
    with pytest.raises(SettingError, match=SETTING):
        __Title__Registry()
