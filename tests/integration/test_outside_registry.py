"""Our builders of Dockerfiles push to an outside registry: the example's, a class of the three published methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from site_images.registry import SiteRegistry

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX
from prebuilt.docker import LocalDockerBuildService
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.engines.buildkit import BuildKit
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.image_tree import subtree
from prebuilt.testing.validate import inspect_image

pytestmark = [pytest.mark.docker, pytest.mark.buildx]


@pytest.fixture(scope="module")
def deployer(new_deployer: Any, registry_host: str, docker_current: Docker, buildkit: BuildKit) -> Iterator[Any]:
    """A machine with an engine and a BuildKit."""
    base = push_base_image(open_repository(f"{registry_host}/outside-bakes"), tag="base", platforms=[Platform.host()])
    with remote_builder(docker_current, buildkit) as builder:
        own = {"METAFLOW_PREBUILT_BUILDX_BUILDER": builder, "METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK": "host"}
        yield new_deployer(host=registry_host, base=base, variables={**docker_current.environ, **own})


@pytest.mark.parametrize("kind", [LocalDockerBuildService, BuildxBuildService])
def test_our_builders_push_to_an_outside_registry(
    kind: Any, deployer: Any, docker_current: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag is its own, and the step is pinned to what was pushed there; the decorator gets what it wants set."""
    for name, value in docker_current.environ.items():
        monkeypatch.setenv(name, value)
    repository = f"{deployer.host}/site/{kind.__name__.lower()}"
    monkeypatch.setenv("SITE_REPOSITORY", repository)
    settings: Settings = deployer.settings
    builder: DockerBuildService = kind(settings)
    image = deployer.bake(builder, "", registry=SiteRegistry(), pypi={"talker": ""})
    tag = SiteRegistry().image_tag(image.spec.env_id)
    served = open_repository(repository).resolve(tag.rpartition(":")[2])
    assert served is not None
    assert image.reference == f"{repository}@{served.digest}"
    assert image.pull_config == {"image_pull_policy": "IfNotPresent", "image_pull_secrets": ["site-pull"]}
    assert any(
        path.endswith("talker/cli.py")
        for path in subtree(inspect_image(open_repository(repository), served.digest).tree, PREFIX)
    )
