"""Whole bakes through ``buildx``: from requirements to an image that is the native builder's, file by file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.bake import BakedImage, Baker, StepImage
from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.lock.resolver import LockResolver
from prebuilt.lock.stage.materials import LockMaterials
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.open import open_repository
from prebuilt.oci.registry import RepositoryRegistry
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.engines.buildkit import BuildKit, buildkit_daemon
from prebuilt.testing.engines.buildx import remote_builder
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.image_tree import subtree, tree_differences
from prebuilt.testing.installed_wheel import installed_wheel
from prebuilt.testing.validate import ImageReport, inspect_image

pytestmark = pytest.mark.buildx

XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
CONDA = {"greeter": "1.0", "large": ""}


@dataclass(frozen=True, kw_only=True)
class Deployer:
    """A machine that bakes with any builder. Its locks are kept."""

    folder: Path
    host: str
    base: str
    channel: str
    index: Any
    builder: str

    @property
    def settings(self) -> Settings:
        """Those of the machine: its package index is the test's."""
        own = {
            "METAFLOW_PREBUILT_CACHE_DIR": str(self.folder / "cache"),
            "METAFLOW_PREBUILT_BUILDX_BUILDER": self.builder,
            "UV_DEFAULT_INDEX": self.index.url,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "UV_", "PIP_"))}
        return Settings({**kept, **own}, {})

    def bake(self, builder: DockerBuildService, name: str, platform: Platform = AMD64, **asked: Any) -> BakedImage:
        """Return the image of an environment with packages of both kinds, in a repository of its own."""
        progress = LineProgress(lambda _: None)
        documents = FolderDocuments(self.folder / "documents")
        resolver = LockResolver(self.settings)
        baker = Baker(
            resolver=resolver,
            bases=BaseImageLookup(self.settings, documents, FolderDocuments(self.folder / "facts")),
            registry=RepositoryRegistry(f"{self.host}/{name}", settings=self.settings),
            builder=builder,
            documents=documents,
            progress=progress,
            has_bytecode=lambda xy: find_interpreter(xy) is not None,
            materials=LockMaterials(
                settings=self.settings, locks=Locks(resolver=resolver, documents=documents, progress=progress)
            ),
        )
        wanted = {
            "python": XY,
            "channels": (self.channel,),
            "conda": CONDA,
            "pypi": {"talker": "", "hefty": ""},
            **asked,
        }
        requirements = Requirements(target=Target(platform=platform), **wanted)
        return baker.bake([StepImage(step="step", requirements=requirements, base_image=self.base)])["step"]


@pytest.fixture(scope="module")
def deployer(
    pantry: Any,
    registry_host: str,
    docker_current: Docker,
    buildkit: BuildKit,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployer]:
    """A machine with a base image for two platforms, and an index that has the tools of build stages."""
    folder = tmp_path_factory.mktemp("deployer")
    for name in ("isal", "py-rattler"):
        pantry.index.add(installed_wheel(folder / "tools", name))
    base = push_base_image(open_repository(f"{registry_host}/buildx-bakes"), tag="both", platforms=[AMD64, ARM64])
    with remote_builder(docker_current, buildkit) as builder:
        yield Deployer(
            folder=folder,
            host=registry_host,
            base=base,
            channel=pantry.channel.url,
            index=pantry.index,
            builder=builder,
        )


@pytest.fixture
def buildx(deployer: Deployer, docker_current: Docker, monkeypatch: pytest.MonkeyPatch) -> BuildxBuildService:
    """The builder, in the environment of a user."""
    for name, value in docker_current.environ.items():
        monkeypatch.setenv(name, value)
    return BuildxBuildService(deployer.settings)


def report(image: BakedImage) -> ImageReport:
    """Return what an image is, every digest of it checked."""
    repository, _, digest = image.reference.partition("@")
    return inspect_image(open_repository(repository), digest)


@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
def test_image_is_the_native_builders(platform: Platform, deployer: Deployer, buildx: BuildxBuildService):
    """Both builders give the same files, for the machine's platform and for one that it cannot run."""
    name = f"bakes/{platform.architecture}"
    one = report(deployer.bake(NativeBuilder(deployer.settings), f"{name}/native", platform))
    other = report(deployer.bake(buildx, f"{name}/buildx", platform))
    assert len(subtree(one.tree, PREFIX)) > 10
    assert tree_differences(one.tree, other.tree) == []
    assert one.config.env == other.config.env
    assert one.config.labels == other.config.labels


def test_digest_is_the_same_from_a_cold_daemon(
    deployer: Deployer, buildx: BuildxBuildService, docker_current: Docker, tmp_path: Path
):
    """Bytecode and all: another daemon with nothing in it makes the same image."""
    first = deployer.bake(buildx, "bakes/first")
    with (
        buildkit_daemon(tmp_path / "cold", registry=deployer.host) as cold,
        remote_builder(docker_current, cold) as builder,
    ):
        settings = Settings({**deployer.settings.environ, "METAFLOW_PREBUILT_BUILDX_BUILDER": builder}, {})
        second = deployer.bake(BuildxBuildService(settings), "bakes/second")
    assert first.descriptor == second.descriptor


def test_one_changed_package_gives_one_new_layer(deployer: Deployer, buildx: BuildxBuildService):
    """Of two environments that differ in one package's version, the images share all other layers."""
    one, other = (
        report(deployer.bake(buildx, "bakes/changed", conda={**CONDA, "greeter": version}))
        for version in ("1.0", "1.1")
    )
    digests = [{layer.descriptor.digest for layer in image.layers} for image in (one, other)]
    assert len(digests[0] - digests[1]) == len(digests[1] - digests[0]) == 1
    assert len(digests[0]) > 4


def test_second_deploy_contacts_neither_builder_nor_index(
    deployer: Deployer, buildx: BuildxBuildService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """What is in the registry is used: no command runs, and no index is asked."""
    first = deployer.bake(buildx, "bakes/again")
    asked = len(deployer.index.requests)
    monkeypatch.setenv("PATH", str(tmp_path))
    again = deployer.bake(BuildxBuildService(deployer.settings), "bakes/again")
    assert again.reused
    assert again.descriptor == first.descriptor
    assert len(deployer.index.requests) == asked
