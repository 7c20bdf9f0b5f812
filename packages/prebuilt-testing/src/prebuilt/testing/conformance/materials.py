"""What builders are given by their suite: wheels from an index on loopback, a small base image, requests, and a progress."""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.canonical import canonical_json
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent, FileEntry
from prebuilt.oci.image import ImageManifest, descriptor_of
from prebuilt.oci.layer import write_layer
from prebuilt.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from prebuilt.oci.repository import Repository
from prebuilt.testing.python_index import PackageIndex, make_wheel

PLATFORM = Platform.parse("linux/amd64")
PYTHON = ".".join(map(str, sys.version_info[:3]))
SITE_PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
RESOLVED_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)

BASE_FILE = "etc/os-release"
BASE_VARIABLE = "OF_THE_BASE"


def push_small_base(repository: Repository) -> BaseImage:
    """Push an image of one file that says it has this Python, to be built upon but not to be run; return what it is."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "layer")
        with path.open("wb") as file:
            entries = [FileEntry(path=BASE_FILE, content=BytesContent(b"ID=base\n"))]
            layer = write_layer(entries, file, compression="gzip")
        repository.push_blob(layer.descriptor, lambda: path.open("rb"))
    config = canonical_json(
        {
            "os": PLATFORM.os,
            "architecture": PLATFORM.architecture,
            "config": {"Env": ["PATH=/usr/bin", f"{BASE_VARIABLE}=1"], "Labels": {"of-the-base": "1"}},
            "history": [{"created_by": "base"}],
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
    )
    pushed = descriptor_of(config, OCI_CONFIG)
    repository.push_blob(pushed, BytesContent(config).open)
    manifest = ImageManifest(config=pushed, layers=(layer.descriptor,))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Makes what a builder is asked for.

    Attributes:
        index: Serves the wheels.
        folder: Where wheels are made.
        target: The repository that is pushed to.
        base: The image that is built upon; in another repository of the same place.
    """

    index: PackageIndex
    folder: Path
    target: Repository
    base: BaseImage

    def wheel(self, name: str, *, files: Mapping[str, str | bytes] | None = None, size_bytes: int = 0) -> Wheel:
        """Return a wheel of version 1.0 that the index serves: a module ``<name>/__init__.py``, `files`, noise of `size_bytes`."""
        content: dict[str, str | bytes] = {f"{name}/__init__.py": f"NAME = {name!r}\n", **(files or {})}
        if size_bytes:
            content[f"{name}/noise.bin"] = random.Random(name).randbytes(size_bytes)  # noqa: S311 - not a secret
        path = make_wheel(self.folder / name, name, "1.0", files=content)
        self.index.add(path)
        data = path.read_bytes()
        return Wheel(
            name=name,
            version="1.0",
            filename=path.name,
            url=f"{self.index.url.removesuffix('/simple')}/files/{path.name}",
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            role="user",
        )

    def spec(self, *packages: Wheel, **changes: Any) -> ImageSpec:  # noqa: ANN401 - fields of the spec
        """Return a spec of `packages` on the base."""
        requirements = Requirements(
            python=PYTHON, target=Target(platform=PLATFORM), pypi={package.name: "" for package in packages}
        ).on(self.base)
        lock = Lock(
            req_id=requirements.req_id,
            target=requirements.target,
            python_version=PYTHON,
            python_source="base",
            packages=packages,
            resolved_at=RESOLVED_AT,
            resolver="the conformance suite",
        )
        return replace(ImageSpec(lock=lock, base=self.base), **changes)

    def request(self, spec: ImageSpec, *, tag: str = "image", **changes: Any) -> BuildRequest:  # noqa: ANN401 - fields of the request
        """Return the request to build `spec` and push it under `tag`."""
        reference = f"{self.target.name}:{tag}"
        return replace(BuildRequest(spec=spec, plan=plan_layers(spec), reference=reference), **changes)


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
