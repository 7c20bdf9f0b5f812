"""Whole bakes through ``buildx``: from requirements to an image that is the native builder's, file by file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.engines.buildkit import BuildKit, buildkit_daemon
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.image_tree import subtree, tree_differences

pytestmark = pytest.mark.buildx

XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
BOTH = {"conda": {"greeter": "1.0", "large": ""}, "pypi": {"talker": "", "hefty": ""}}
"""Packages of both kinds."""


@pytest.fixture(scope="module")
def deployer(new_deployer: Any, registry_host: str, docker_current: Docker, buildkit: BuildKit) -> Iterator[Any]:
    """A machine with a base image for two platforms."""
    base = push_base_image(open_repository(f"{registry_host}/buildx-bakes"), tag="both", platforms=[AMD64, ARM64])
    with remote_builder(docker_current, buildkit) as builder:
        yield new_deployer(host=registry_host, base=base, variables={"METAFLOW_PREBUILT_BUILDX_BUILDER": builder})


@pytest.fixture
def buildx(deployer: Any, docker_current: Docker, monkeypatch: pytest.MonkeyPatch) -> BuildxBuildService:
    """The builder, in the environment of a user."""
    for name, value in docker_current.environ.items():
        monkeypatch.setenv(name, value)
    return BuildxBuildService(deployer.settings)


@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
def test_image_is_the_native_builders(platform: Platform, deployer: Any, buildx: BuildxBuildService):
    """Both builders give the same files, for the machine's platform and for one that it cannot run."""
    name = f"bakes/{platform.architecture}"
    one = deployer.report(deployer.bake(NativeBuilder(deployer.settings), f"{name}/native", platform=platform, **BOTH))
    other = deployer.report(deployer.bake(buildx, f"{name}/buildx", platform=platform, **BOTH))
    assert len(subtree(one.tree, PREFIX)) > 10
    assert tree_differences(one.tree, other.tree) == []
    assert one.config.env == other.config.env
    assert one.config.labels == other.config.labels


def test_one_deploy_for_several_platforms(deployer: Any, buildx: BuildxBuildService):
    """Steps of one flow for two platforms: each has an image for its own, built beside the other's, with its own digest."""
    images = deployer.bake_all(buildx, "bakes/platforms", platforms=(AMD64, ARM64), **BOTH)
    reports = [deployer.report(image) for image in images]
    assert [report.config.data["architecture"] for report in reports] == ["amd64", "arm64"]
    assert images[0].reference != images[1].reference
    assert images[0].reference.partition("@")[0] == images[1].reference.partition("@")[0]
    assert all(len(subtree(report.tree, PREFIX)) > 10 for report in reports)


def test_digest_is_the_same_from_a_cold_daemon(
    deployer: Any, buildx: BuildxBuildService, docker_current: Docker, tmp_path: Path
):
    """Bytecode and all: another daemon with nothing in it makes the same image."""
    first = deployer.bake(buildx, "bakes/first", platform=AMD64, **BOTH)
    with (
        buildkit_daemon(tmp_path / "cold", registry=deployer.host) as cold,
        remote_builder(docker_current, cold) as builder,
    ):
        settings = Settings({**deployer.settings.environ, "METAFLOW_PREBUILT_BUILDX_BUILDER": builder}, {})
        second = deployer.bake(BuildxBuildService(settings), "bakes/second", platform=AMD64, **BOTH)
    assert first.descriptor == second.descriptor


def test_one_changed_package_gives_one_new_layer(deployer: Any, buildx: BuildxBuildService):
    """Of two environments that differ in one package's version, the images share all other layers."""
    one, other = (
        deployer.report(
            deployer.bake(
                buildx, "bakes/changed", platform=AMD64, **{**BOTH, "conda": {**BOTH["conda"], "greeter": version}}
            )
        )
        for version in ("1.0", "1.1")
    )
    digests = [{layer.descriptor.digest for layer in image.layers} for image in (one, other)]
    assert len(digests[0] - digests[1]) == len(digests[1] - digests[0]) == 1
    assert len(digests[0]) > 4


def test_second_deploy_contacts_neither_builder_nor_index(
    deployer: Any, buildx: BuildxBuildService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """What is in the registry is used: no command runs, and no index is asked."""
    first = deployer.bake(buildx, "bakes/again", platform=AMD64, **BOTH)
    asked = len(deployer.index.requests)
    monkeypatch.setenv("PATH", str(tmp_path))
    again = deployer.bake(BuildxBuildService(deployer.settings), "bakes/again", platform=AMD64, **BOTH)
    assert again.reused
    assert again.descriptor == first.descriptor
    assert len(deployer.index.requests) == asked
