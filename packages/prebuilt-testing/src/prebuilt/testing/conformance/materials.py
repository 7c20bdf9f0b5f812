"""What builders are given by their suite: wheels from an index on loopback, a small base image, requests, and a progress."""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from prebuilt.core.build_service import BuildRequest, DockerBuildService
from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.dockerfile import MaterialsSource
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.lock import Lock, LockedPackage, Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent, FileEntry, PathContent
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.layer import write_layer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from prebuilt.oci.repository import Repository
from prebuilt.testing.base_image import make_base_image
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.python_index import PackageIndex, make_wheel

PLATFORM = Platform.parse("linux/amd64")
PYTHON = ".".join(map(str, sys.version_info[:3]))
SITE_PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
RESOLVED_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def push_small_base(repository: Repository, *, entrypoint: Sequence[str] = ()) -> BaseImage:
    """Push an image of one file that says it has this Python, to be built upon but not to be run; return what it is."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "layer")
        with path.open("wb") as file:
            entries = [FileEntry(path="etc/os-release", content=BytesContent(b"ID=base\n"))]
            layer = write_layer(entries, file, compression="gzip")
        repository.push_blob(layer.descriptor, lambda: path.open("rb"))
    config = canonical_json(
        {
            "os": PLATFORM.os,
            "architecture": PLATFORM.architecture,
            "config": {
                "Env": ["PATH=/usr/bin", "OF_THE_BASE=1"],
                "Labels": {"of-the-base": "1"},
                **({"Entrypoint": list(entrypoint)} if entrypoint else {}),
            },
            "history": [{"created_by": "base"}],
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
    )
    manifest = ImageManifest(config=push_bytes(repository, config, OCI_CONFIG), layers=(layer.descriptor,))
    stored = repository.put_manifest("base", OCI_MANIFEST, manifest.to_bytes())
    return BaseImage(
        reference=f"{repository.name}:base",
        repository=repository.name,
        digest=stored.digest,
        platform=PLATFORM,
        layer_count=1,
        glibc="2.36",
        python=BasePython(path="/usr/local/bin/python3", version=PYTHON),
    )


def push_runnable_base(repository: Repository, kept: Path) -> BaseImage:
    """Push an image in which build stages can run, made of this machine's Python; return what it is.

    The layout `kept` has it from the first call on, since making it takes seconds.
    """
    source = LayoutRepository(kept)
    if source.resolve("base") is None:
        make_base_image(kept, tag="base")
    stored = source.get_manifest("base")
    assert stored is not None, "it was made just now"
    manifest = ImageManifest.parse(stored.data)
    for blob in (manifest.config, *manifest.layers):
        content = PathContent(kept / "blobs" / blob.digest.replace(":", "/"))
        repository.push_blob(blob, content.open)
    repository.put_manifest("base", stored.descriptor.media_type, stored.data)
    return BaseImage(
        reference=f"{repository.name}:base",
        repository=repository.name,
        digest=stored.descriptor.digest,
        platform=Platform.host(),
        layer_count=len(manifest.layers),
        glibc="2.36",
        python=BasePython(path=f"/usr/local/bin/python{sys.version_info[0]}.{sys.version_info[1]}", version=PYTHON),
    )


def serve_wheel(
    index: PackageIndex,
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, str | bytes] | None = None,
    size_bytes: int = 0,
) -> Wheel:
    """Make a wheel below `folder`, have `index` serve it, and return it as it is locked.

    In it are a module ``<name>/__init__.py``, `files`, and noise of `size_bytes`.
    """
    content: dict[str, str | bytes] = {f"{name}/__init__.py": f"__version__ = {version!r}\n", **(files or {})}
    if size_bytes:
        content[f"{name}/noise.bin"] = random.Random(name).randbytes(size_bytes)  # noqa: S311 - not a secret
    path = make_wheel(folder / f"{name}-{version}", name, version, files=content)
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


def spec_on(base: BaseImage, *packages: LockedPackage, **changes: Any) -> ImageSpec:  # noqa: ANN401 - fields of the spec
    """Return a spec of `packages` on `base`, with the base's Python."""
    requirements = Requirements(
        python=PYTHON, target=Target(platform=base.platform), pypi={package.name: "" for package in packages}
    ).on(base)
    lock = Lock(
        req_id=requirements.req_id,
        target=requirements.target,
        python_version=PYTHON,
        python_source="base",
        packages=packages,
        resolved_at=RESOLVED_AT,
        resolver="the conformance suite",
    )
    return replace(ImageSpec(lock=lock, base=base), **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Makes what a builder is asked for.

    Attributes:
        index: Serves the wheels.
        folder: Where wheels are made.
        target: The repository that is pushed to.
        base: The image that is built upon; in another repository.
        stage: Gathers what a Dockerfile's build stage needs; None for builders of specs.
    """

    index: PackageIndex
    folder: Path
    target: Repository
    base: BaseImage
    stage: MaterialsSource | None = None

    def wheel(self, name: str, *, files: Mapping[str, str | bytes] | None = None, size_bytes: int = 0) -> Wheel:
        """Return a wheel of version 1.0 that the index serves, as :func:`serve_wheel` makes them."""
        return serve_wheel(self.index, self.folder, name, files=files, size_bytes=size_bytes)

    def spec(self, *packages: Wheel, **changes: Any) -> ImageSpec:  # noqa: ANN401 - fields of the spec
        """Return a spec of `packages` on the base."""
        return spec_on(self.base, *packages, **changes)

    def request(self, spec: ImageSpec, *, tag: str = "image", **changes: Any) -> BuildRequest:  # noqa: ANN401 - fields of the request
        """Return the request to build `spec` and push it under `tag`."""
        reference = f"{self.target.name}:{tag}"
        request = BuildRequest(spec=spec, plan=plan_layers(spec), reference=reference, materials=self.stage)
        return replace(request, **changes)

    def deploy(self, builder: DockerBuildService, registry: ImageRegistry, spec: ImageSpec) -> Descriptor | None:
        """Have `builder` make and push an image as a deploy does, with what the registry hands it; return what it returned.

        What was pushed is served; no secret is said, whatever happens.
        """
        tag, progress = registry.push_tag(spec.env_id), RecordingProgress()
        credentials, documents = registry.credentials(tag), registry.documents()
        request = replace(self.request(spec), reference=tag, credentials=credentials, documents=documents)
        try:
            built = builder.build(request, progress)
        finally:
            assert credentials is None or not any(credentials.secret in text for text in progress.texts)
        served = registry.resolve(tag)
        assert served == built
        return served


@dataclass(slots=True)
class RecordingProgress:
    """An image's progress that remembers what it was told."""

    texts: list[str] = field(default_factory=list)
    total_bytes: int = 0
    done_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self, text: str) -> None:
        """Remember what is being done."""
        self._say(text)

    def add_total(self, size_bytes: int) -> None:
        """Count announced bytes."""
        with self._lock:
            self.total_bytes += size_bytes

    def advance(self, size_bytes: int) -> None:
        """Count bytes that are done."""
        with self._lock:
            self.done_bytes += size_bytes

    def note(self, text: str) -> None:
        """Remember a note."""
        self._say(text)

    def output(self, line: str) -> None:
        """Remember a line of a builder's output."""
        self._say(line)

    def done(self, text: str) -> None:
        """Remember the end."""
        self._say(text)

    def failed(self, text: str) -> None:
        """Remember the failure."""
        self._say(text)

    def _say(self, text: str) -> None:
        with self._lock:
            self.texts.append(text)
