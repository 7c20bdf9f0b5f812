"""A builder, a repository to push to, a base image, and wheels to install."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.lock import Lock, LockedPackage, Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress, LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent, FileEntry
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.image import ImageManifest, descriptor_of
from prebuilt.oci.layer import write_layer
from prebuilt.oci.media_types import OCI_CONFIG
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.python_index import PackageIndex, make_wheel
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

    def make(name: str, version: str = "1.0", *, padding: int = 0, files: dict[str, bytes] | None = None) -> Wheel:
        content: dict[str, str | bytes] = {f"{name}/__init__.py": f"__version__ = {version!r}\n", **(files or {})}
        if padding:
            noise = b"".join(hashlib.sha256(f"{name}{n}".encode()).digest() for n in range(padding // 32))
            content[f"{name}/data.bin"] = noise
        path = make_wheel(tmp_path / "wheels" / f"{name}-{version}", name, version, files=content)
        index.add(path)
        data = path.read_bytes()
        return Wheel(
            name=name,
            version=version,
            filename=path.name,
            url=f"{index.url.removesuffix('/simple')}/files/{path.name}",
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            role="user",
        )

    return make


def push_base(repository: Repository) -> BaseImage:
    """Push a base image of one small layer that says it has this Python."""
    import io
    import tempfile

    with tempfile.TemporaryFile() as file:
        entries = [FileEntry(path="etc/os-release", content=BytesContent(b"ID=test\n"))]
        layer = write_layer(entries, file, compression="gzip")
        file.seek(0)
        data = file.read()
    repository.push_blob(layer.descriptor, lambda: io.BytesIO(data))
    config = canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin", "A=1"], "Entrypoint": ["/entry"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
    )
    config_descriptor = descriptor_of(config, OCI_CONFIG)
    repository.push_blob(config_descriptor, lambda: io.BytesIO(config))
    manifest = ImageManifest(config=config_descriptor, layers=(layer.descriptor,), annotations={})
    pushed = repository.put_manifest("base", manifest.descriptor.media_type, manifest.to_bytes())
    return BaseImage(
        reference="base",
        repository=repository.name,
        digest=pushed.digest,
        platform=LINUX,
        layer_count=1,
        glibc="2.36",
        python=BasePython(path="/usr/local/bin/python3", version=PYTHON),
    )


@dataclass
class Bench:
    """What a test builds with: a repository, a base image in another one, and a fresh or shared builder."""

    repository: str
    base: BaseImage
    settings: Settings
    lines: list[str] = field(default_factory=list)

    def spec(self, *packages: LockedPackage, **values: object) -> ImageSpec:
        """Return a spec of `packages` on the base image."""
        requirements = Requirements(
            python=PYTHON, target=Target(platform=LINUX), pypi={package.name: "" for package in packages}
        ).on(self.base)
        lock = Lock(
            req_id=requirements.req_id,
            target=requirements.target,
            python_version=PYTHON,
            python_source="base",
            packages=packages,
            resolved_at=datetime(2026, 11, 23, tzinfo=timezone.utc),
            resolver="test",
        )
        return replace(ImageSpec(lock=lock, base=self.base), **values)  # type: ignore[arg-type]

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
    base = push_base(open_repository(f"oci:{tmp_path / 'base'}", settings=settings))
    return Bench(f"oci:{tmp_path / 'layout'}", base, settings)


@pytest.fixture
def registry_bench(registry: InMemoryRegistry, settings: Settings) -> Bench:
    """Return a bench that builds into a registry, which also has the base image."""
    base = push_base(open_repository(registry.repository("base"), settings=settings))
    return Bench(registry.repository("team/env"), base, settings)


@pytest.fixture(params=["layout", "registry"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Return a bench for each place that images are pushed to."""
    found = request.getfixturevalue(f"{request.param}_bench")
    assert isinstance(found, Bench)
    return found
