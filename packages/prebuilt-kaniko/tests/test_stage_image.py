"""The image of a build stage that runs elsewhere than its image will."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prebuilt.core.errors import BaseImageError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.kaniko.stage_image import pinned
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_manifest import push_manifest, tag_platforms
from prebuilt.testing.registry import InMemoryRegistry

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """A registry on loopback."""
    with InMemoryRegistry() as server:
        yield server


def test_image_is_pinned_for_the_nodes(registry: InMemoryRegistry) -> None:
    """Of an index, it is the manifest for their platform; a manifest alone has to be for it."""
    repository = open_repository(registry.repository("base"))
    manifests = {one: push_manifest(repository, one, [], python_version="3.11.7") for one in (AMD64, ARM64)}
    index = tag_platforms(repository, "both", manifests)
    alone = f"{registry.repository('base')}@{manifests[AMD64].digest}"
    for image in index, f"{registry.repository('base')}:both", alone:
        assert pinned(image, AMD64, Settings({}, {})) == alone
    with pytest.raises(BaseImageError, match="it is for linux/amd64 only") as caught:
        pinned(alone, ARM64, Settings({}, {}))
    assert "METAFLOW_PREBUILT_BUILD_IMAGE" in caught.value.remedy


def test_image_that_is_not_there(registry: InMemoryRegistry) -> None:
    """It is told by its name."""
    with pytest.raises(BaseImageError, match="it is not there") as caught:
        pinned(f"{registry.repository('base')}:none", AMD64, Settings({}, {}))
    assert "base:none" in caught.value.at
