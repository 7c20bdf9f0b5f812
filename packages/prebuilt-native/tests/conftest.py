"""A builder, a repository to push to, a base image, and wheels to install."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.lock import LockedPackage, Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress, LineProgress
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BaseImage, ImageSpec
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.conformance.materials import push_small_base, serve_wheel, spec_on
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.registry import InMemoryRegistry

LINUX = Platform.parse("linux/amd64")
PYTHON = ".".join(map(str, sys.version_info[:3]))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings whose cache is empty."""
    return Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache")}, {})


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """Return an empty registry."""
    with InMemoryRegistry() as registry:
        yield registry


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    """Return an empty package index."""
    with PackageIndex().serving() as index:
        yield index


@pytest.fixture
def wheel(index: PackageIndex, tmp_path: Path) -> Callable[..., Wheel]:
    """Return a maker of locked wheels that the index serves. `padding` bytes make one large."""

    def make(
        name: str, version: str = "1.0", *, padding: int = 0, files: dict[str, str | bytes] | None = None
    ) -> Wheel:
        return serve_wheel(index, tmp_path / "wheels", name, version, files=files, size_bytes=padding)

    return make


@dataclass
class Bench:
    """What a test builds with: a repository, a base image in another one, and a fresh or shared builder."""

    repository: str
    base: BaseImage
    settings: Settings
    lines: list[str] = field(default_factory=list)

    def spec(self, *packages: LockedPackage, **values: object) -> ImageSpec:
        """Return a spec of `packages` on the base image."""
        return spec_on(self.base, *packages, **values)

    def request(self, spec: ImageSpec, tag: str = "image") -> BuildRequest:
        """Return the request to build `spec`."""
        return BuildRequest(spec=spec, plan=plan_layers(spec), reference=f"{self.repository}:{tag}")

    def progress(self) -> ImageProgress:
        """Return progress that writes to `lines`."""
        return LineProgress(self.lines.append).image("step")

    def build(self, *packages: LockedPackage, **values: object) -> Descriptor:
        """Build `packages` with a new builder, as a new process would."""
        return NativeBuilder(self.settings).build(self.request(self.spec(*packages, **values)), self.progress())

    def open(self) -> Repository:
        """Return the repository that is pushed to."""
        return open_repository(self.repository, settings=self.settings)

    def layers(self, manifest: Descriptor) -> tuple[Descriptor, ...]:
        """Return the layers of a manifest."""
        found = self.open().get_manifest(manifest.digest)
        assert found is not None
        return ImageManifest.parse(found.data).layers


@pytest.fixture
def layout_bench(tmp_path: Path, settings: Settings) -> Bench:
    """Return a bench that builds into a layout."""
    base = push_small_base(open_repository(f"oci:{tmp_path / 'base'}", settings=settings), entrypoint=["/entry"])
    return Bench(f"oci:{tmp_path / 'layout'}", base, settings)


@pytest.fixture
def registry_bench(registry: InMemoryRegistry, settings: Settings) -> Bench:
    """Return a bench that builds into a registry, which also has the base image."""
    base = push_small_base(open_repository(registry.repository("base"), settings=settings), entrypoint=["/entry"])
    return Bench(registry.repository("team/env"), base, settings)


@pytest.fixture(params=["layout", "registry"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Return a bench for each place that images are pushed to."""
    found = request.getfixturevalue(f"{request.param}_bench")
    assert isinstance(found, Bench)
    return found
