"""Requests for builders whose engine is a fake: of an image whose base and packages are nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.dockerfile import PROGRAM, BuildMaterials, MaterialsSource
from prebuilt.core.lock import Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent, Content
from prebuilt.testing.conformance.materials import PYTHON, spec_on


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainMaterials:
    """Gives a build stage a program that is none, and `files`."""

    files: Mapping[str, Content] = field(default_factory=dict)

    @contextlib.contextmanager
    def gather(
        self, spec: ImageSpec, progress: ImageProgress, *, check: Callable[[], None]
    ) -> Iterator[BuildMaterials]:
        """Give them."""
        del spec, progress
        check()
        yield BuildMaterials(files={PROGRAM: BytesContent(b"program"), **self.files})


_: type[MaterialsSource] = PlainMaterials


def plain_request(
    reference: str,
    *,
    platform: str = "linux/amd64",
    files: Mapping[str, Content] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> BuildRequest:
    """Return the request to push an image with one wheel as `reference`; `files` are in its context, `spec` are fields of its spec."""
    base = BaseImage(
        reference="python:3-slim",
        repository="docker.io/library/python",
        digest="sha256:" + "1" * 64,
        platform=Platform.parse(platform),
        layer_count=1,
        glibc="2.36",
        python=BasePython(path="/usr/local/bin/python3", version=PYTHON),
        index_digest="sha256:" + "2" * 64,
    )
    wheel = Wheel(
        name="one",
        version="1.0",
        filename="one-1.0-py3-none-any.whl",
        url="https://index.example/one-1.0-py3-none-any.whl",
        sha256="3" * 64,
        size_bytes=1000,
        role="user",
    )
    made = spec_on(base, wheel, **(spec or {}))
    materials = PlainMaterials(files=files or {})
    return BuildRequest(spec=made, plan=plan_layers(made), reference=reference, materials=materials)
