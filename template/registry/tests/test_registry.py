"""The registry ``__name__``."""

from __future__ import annotations

import pytest

from prebuilt.__name__ import __Title__Registry
from prebuilt.core.errors import SettingError
from prebuilt.core.plugins import IMAGE_REGISTRIES


@pytest.fixture
def _configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFLOW_PREBUILT___NAME___REPOSITORY", "registry.example.com/team/flows")


@pytest.mark.usefixtures("_configured")
def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_IMAGE_REGISTRY=__name__ selects it."""
    assert isinstance(IMAGE_REGISTRIES.get("__name__"), __Title__Registry)


@pytest.mark.usefixtures("_configured")
def test_keeps_images_where_it_is_told() -> None:
    """Images go to the repository of the setting."""
    assert __Title__Registry().repository == "registry.example.com/team/flows"


def test_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a repository, the error names the setting."""
    monkeypatch.delenv("METAFLOW_PREBUILT___NAME___REPOSITORY", raising=False)
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT___NAME___REPOSITORY"):
        __Title__Registry()
