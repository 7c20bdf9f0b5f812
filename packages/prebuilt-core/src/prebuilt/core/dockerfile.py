"""The Dockerfile of an image, for every builder that takes one, and the context that it is built in.

A build stage runs on the build machine and makes each layer's files with the code that the native builder uses. The final
stage runs nothing: it copies the layers onto the base, so an image for another platform needs no emulation.

In the context, by POSIX name::

    Dockerfile
    materialise.pyz              makes every layer below layers/ that is not below made/ yet; first installs its tools
    layers/<key>.json            one LayerSource
    packages/<sha256>/<file>     packages that the build stage could not fetch for itself
    …                            what else the program needs (its tools' hashes, certificates)

The build stage has the same names below `STAGE_FOLDER`, and the files of a layer below ``made/<key>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import urlsplit

from prebuilt.core.errors import BuildError, InvalidValueError
from prebuilt.core.layer_source import LayerSource
from prebuilt.core.loopback import is_loopback
from prebuilt.core.plan import LayerPlan, PlannedLayer
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress
from prebuilt.core.spec import DEFAULT_PATH, PREFIX, ImageSpec
from prebuilt.core.tree import BytesContent, Content

DockerfileForm = Literal["buildkit", "plain"]
"""``buildkit`` makes each layer in a stage of its own, which is cached and run beside the others, on the build machine's platform.
``plain`` has nothing that a builder of 2017 does not know: one stage makes all of them."""

STAGE_FOLDER = "/prebuilt"
PROGRAM = "materialise.pyz"

_OLDEST_PYTHON = (3, 10)  # that the program runs on
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildMaterials:
    """What a build stage needs beside the layers' sources.

    Attributes:
        files: By their names in the context; `PROGRAM` is one of them.
        packages: Those that the build stage could not fetch for itself, by SHA-256 (64 hex digits).
        image: What the build stage runs in; None for the base image, or Python's own where the base's does not fit.
    """

    files: Mapping[str, Content]
    packages: Mapping[str, Content] = field(default_factory=dict)
    image: str | None = None


class MaterialsSource(Protocol):
    """Gathers what a build stage needs. Concurrent calls are fine."""

    def gather(
        self, spec: ImageSpec, progress: ImageProgress, *, check: Callable[[], None]
    ) -> AbstractContextManager[BuildMaterials]:
        """Give the materials for an image of `spec`; they can be read inside the context only. `check` raises to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerfileBuild:
    """A Dockerfile and its context. The same spec and materials give the same bytes.

    Attributes:
        dockerfile: Its text.
        context: The other files, by POSIX name, sorted.
        platform: What the image is for.
        stage_image: What the build stage runs in, where that is not the base image; for messages.
    """

    dockerfile: str
    context: Mapping[str, Content]
    platform: Platform
    stage_image: str | None = None


def check_python(spec: ImageSpec) -> None:
    """Refuse an environment whose layers no build stage can make, before anything is gathered for it.

    Raises:
        BuildError: Its Python is too old.
    """
    xy = spec.lock.python_xy
    if tuple(map(int, xy.split("."))) < _OLDEST_PYTHON:
        raise BuildError(
            f"render a Dockerfile for an environment with Python {xy}",
            reason="its layers are made by that Python in a build stage, which takes 3.10 or newer",
            remedy="use a newer Python, or set METAFLOW_PREBUILT_BUILD_SERVICE=native",
        )


def dockerfile_build(
    spec: ImageSpec,
    plan: LayerPlan,
    materials: BuildMaterials,
    form: DockerfileForm,
    *,
    pin: Callable[[str], str] = lambda image: image,
    sets_labels: bool = True,
) -> DockerfileBuild:
    """Return what builds `spec`, layered by `plan`.

    Args:
        spec: What.
        plan: How it is layered.
        materials: What the build stage needs.
        form: What the builder understands.
        pin: Is given the build stage's image in the plain form, and returns the one for the platform that it runs on: for builders
            that have one platform for all stages.
        sets_labels: Whether it sets the labels; False for a builder that gives them to the image itself.

    Raises:
        BuildError: No build stage can make the layers.
        InvalidValueError: A label or variable cannot be written into a Dockerfile.
    """
    check_python(spec)
    context: dict[str, Content] = dict(materials.files)
    for layer in plan.layers:
        context[f"layers/{layer.key}.json"] = BytesContent(LayerSource.of(spec, layer).to_bytes())
        for package in layer.packages:
            if package.sha256 in materials.packages:
                context[f"packages/{package.sha256}/{package.filename}"] = materials.packages[package.sha256]
    renderer = _Renderer(spec, plan, materials, form, pin, spec.all_labels if sets_labels else {})
    return DockerfileBuild(
        dockerfile=renderer.text(),
        context=dict(sorted(context.items())),
        platform=spec.base.platform,
        stage_image=renderer.stage_image,
    )


def proxy_arguments(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the build arguments that carry this machine's proxies, which builders keep out of images and caches.

    A proxy on loopback is left out: build stages have a loopback of their own.

    Source: https://docs.docker.com/reference/dockerfile/#predefined-args
    """
    set_here = {name: environ[name] for upper in _PROXIES for name in (upper, upper.lower()) if environ.get(name)}
    return {name: value for name, value in set_here.items() if name.upper() == "NO_PROXY" or not _is_on_loopback(value)}


def _is_on_loopback(proxy: str) -> bool:
    try:
        return is_loopback(urlsplit(proxy if "//" in proxy else f"//{proxy}").hostname or "")
    except ValueError:  # it is no URL: whoever uses it will say so
        return False


class _Renderer:
    def __init__(
        self,
        spec: ImageSpec,
        plan: LayerPlan,
        materials: BuildMaterials,
        form: DockerfileForm,
        pin: Callable[[str], str],
        labels: Mapping[str, str],
    ) -> None:
        self._spec, self._plan, self._materials, self._form = spec, plan, materials, form
        self._pin, self._labels = pin, labels
        self._base = f"{spec.base.repository}@{spec.base.digest}"
        self._image, self._python = self._build_stage()

    def text(self) -> str:
        stages = self._buildkit_stages() if self._form == "buildkit" else self._plain_stage()
        return "\n".join([f"# Image {self._spec.full_id} of metaflow-prebuilt", "", *stages, *self._final_stage(), ""])

    @property
    def stage_image(self) -> str | None:
        """What the build stage runs in, where that is not the base."""
        return None if self._image.startswith(f"{self._spec.base.repository}@") else self._image

    def _build_stage(self) -> tuple[str, str]:
        """Return image and interpreter of the build stage. Its Python is the environment's, whose bytecode it compiles."""
        spec, base = self._spec, self._spec.base
        xy = spec.lock.python_xy
        if self._materials.image is not None:
            return self._materials.image, "python3"
        if base.python is not None and base.python.version.startswith(f"{xy}."):
            return f"{base.repository}@{base.index_digest or base.digest}", base.python.path
        return f"python:{xy}-slim", "python3"

    def _buildkit_stages(self) -> Iterator[str]:
        is_pinned = self._materials.image is None and self._image == self._base
        platform = str(self._spec.base.platform) if is_pinned else "$BUILDPLATFORM"
        yield f"FROM --platform={platform} {self._image} AS tools"
        yield "USER 0"
        yield from (f"COPY {name} {STAGE_FOLDER}/{name}" for name in sorted(self._materials.files))
        yield self._run()
        for number, layer in enumerate(self._plan.layers):
            yield ""
            yield f"# {_one_line(layer.name)}"
            yield f"FROM tools AS layer-{number:02}"
            yield self._run(*self._mounts(layer))
        yield ""

    def _plain_stage(self) -> Iterator[str]:
        yield f"FROM {self._pin(self._image)} AS environment"
        yield "USER 0"
        yield f"COPY . {STAGE_FOLDER}"
        yield self._run()
        yield ""

    def _final_stage(self) -> Iterator[str]:
        is_buildkit = self._form == "buildkit"
        yield f"FROM --platform={self._spec.base.platform} {self._base}" if is_buildkit else f"FROM {self._base}"
        for number, layer in enumerate(self._plan.layers):
            source = f"--link --from=layer-{number:02}" if is_buildkit else "--from=environment"
            yield f"COPY {source} {STAGE_FOLDER}/made/{layer.key}/ /"
        yield f'ENV PATH="{PREFIX}/bin:${{PATH:-{DEFAULT_PATH}}}"'
        yield from (f"ENV {_variable(name)}={_quoted(value)}" for name, value in sorted(self._spec.env.items()))
        yield from (f"LABEL {_quoted(name)}={_quoted(value)}" for name, value in sorted(self._labels.items()))
        # Tasks are started with a whole command: Kubernetes puts it in place of an entry point, Batch behind it.
        yield "ENTRYPOINT []"

    def _mounts(self, layer: PlannedLayer) -> Iterator[str]:
        """Yield the sources of one layer; a cached layer stays valid as long as these do not change."""
        yield f"layers/{layer.key}.json"
        yield from (f"packages/{p.sha256}" for p in layer.packages if p.sha256 in self._materials.packages)

    def _run(self, *mounts: str) -> str:
        options = "".join(f"--mount=type=bind,source={name},target={STAGE_FOLDER}/{name} " for name in mounts)
        return f"RUN {options}{json.dumps([self._python, '-I', f'{STAGE_FOLDER}/{PROGRAM}'])}"


def _quoted(value: str) -> str:
    """Return `value` as a double-quoted word of a Dockerfile, taken literally.

    Source: https://docs.docker.com/reference/dockerfile/#environment-replacement
    """
    if _CONTROL.search(value):
        raise InvalidValueError("a value in a Dockerfile", value, reason="it has a line break or a control character")
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise InvalidValueError("a variable's name in a Dockerfile", name, reason="expected letters, digits and _.-")
    return name


def _one_line(text: str) -> str:
    return _CONTROL.sub(" ", text)
