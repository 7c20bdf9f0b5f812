"""The setting by which builders share a cache."""

from __future__ import annotations

import pytest

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.build_cache import BESIDE_IMAGES, cache_setting

NAME = "PREBUILT_SOME_CACHE"


def setting(value: str, **options: bool) -> str | None:
    """Return what the setting says."""
    return cache_setting(Settings({f"METAFLOW_{NAME}": value}, {}), NAME, default=BESIDE_IMAGES, **options)


@pytest.mark.parametrize(
    ("value", "cache"),
    [
        ("on", BESIDE_IMAGES),
        ("1", BESIDE_IMAGES),
        ("", BESIDE_IMAGES),
        ("Off", None),
        ("r.example/cache", "r.example/cache"),
        ("r.example:5000/a/cache:mine", "r.example:5000/a/cache:mine"),
        ("localhost/cache", "localhost/cache"),
    ],
)
def test_it_is_a_switch_or_a_place(value: str, cache: str | None) -> None:
    """Beside the images, nowhere, or a repository of its own, with a tag or without."""
    assert setting(value) == cache


@pytest.mark.parametrize(
    "value",
    [
        "maybe",
        "team/cache",
        "r.example",
        "https://r.example/cache",
        "r.example/Cache",
        f"r.example/cache@sha256:{'0' * 64}",
        "oci:/folder/cache",
    ],
)
def test_anything_else_is_refused(value: str) -> None:
    """What is neither is named with its setting, before anything is built."""
    with pytest.raises(SettingError, match=f"METAFLOW_{NAME}.*set it to on, off or host/repository"):
        setting(value)


def test_a_tag_may_be_too_much() -> None:
    """Kaniko makes tags of its own in a repository that is for nothing else."""
    assert setting("r.example:5000/cache", takes_tag=False) == "r.example:5000/cache"
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_SOME_CACHE"):
        setting("r.example:5000/cache:mine", takes_tag=False)
