"""The command line of one build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from prebuilt.buildx.config import BuildxConfig
from prebuilt.buildx.instance import BuilderInstance
from prebuilt.core.build_service import check_registry
from prebuilt.core.dockerfile import proxy_arguments
from prebuilt.core.spec import Compression, ImageSpec
from prebuilt.oci.build_cache import BESIDE_IMAGES
from prebuilt.oci.reference import parse_reference, split_repository

_EPOCH_S = 0
_CACHE_TAG = "buildcache"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildxBuild:
    """One image to build and push.

    Attributes:
        reference: Where to: ``host/repository:tag``.
        repository: Its ``host/repository``, in full.
        host: Its ``host[:port]``.
        platform: ``linux/arm64``; None for the builder's own.
        compression: Of the layers that are added; None for BuildKit's choice.
        annotations: Of the manifest.
        cache_key: What the cached layers of earlier versions of this image are found by.
        layouts: Images on this machine's disk by what they are called in the Dockerfile: ``/folder@sha256:…``.
        stage_image: What the build stage runs in, where that is not the base image; for messages.
    """

    reference: str
    repository: str
    host: str
    platform: str | None = None
    compression: Compression | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    cache_key: str = ""
    layouts: Mapping[str, str] = field(default_factory=dict)
    stage_image: str | None = None

    @classmethod
    def to(cls, reference: str) -> BuildxBuild:
        """Return the build of anything that is pushed as `reference`.

        Raises:
            BuildError: The reference is to an image layout.
            InvalidValueError: It is no reference.
        """
        check_registry(reference, "buildx")
        repository = parse_reference(reference).repository
        host, _ = split_repository(repository)
        return cls(reference=reference, repository=repository, host=host)

    def of(self, spec: ImageSpec) -> BuildxBuild:
        """Return this build as that of a spec."""
        return replace(
            self,
            platform=str(spec.base.platform),
            compression=spec.compression,
            annotations=spec.annotations,
            cache_key=spec.cache_key,
        )


def build_command(
    build: BuildxBuild,
    instance: BuilderInstance,
    config: BuildxConfig,
    environ: Mapping[str, str],
    metadata: Path,
) -> list[str]:
    """Return the command that builds `build` from a context on its standard input, and writes `metadata`."""
    return [
        *(instance.docker, "buildx", "build", "--builder", instance.name, "--progress=plain"),
        *(("--platform", build.platform) if build.platform else ()),
        f"--provenance={_switch(on=config.provenance)}",
        f"--sbom={_switch(on=config.sbom)}",
        *("--metadata-file", str(metadata)),
        # Values come from the environment: a proxy's may hold a password, and command lines can be seen by everybody.
        *(f"--build-arg={name}" for name in proxy_arguments(environ)),
        # The final stage names its platform where a builder's own would do: the base is pinned to it.
        "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=FromPlatformFlagConstDisallowed",
        *(f"--build-context={name}=oci-layout://{place}" for name, place in sorted(build.layouts.items())),
        *("--output", _comma_separated(_output(build))),
        *_cache_options(build, config),
        *config.options,
        "-",
    ]


def build_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the command: no colours, no hints, and no time of day in the image.

    Source: https://docs.docker.com/build/ci/github-actions/reproducible-builds/
    """
    return {
        **environ,
        "SOURCE_DATE_EPOCH": str(_EPOCH_S),
        "BUILDX_METADATA_PROVENANCE": "disabled",
        "DOCKER_CLI_HINTS": "false",
        "NO_COLOR": "1",
    }


def _output(build: BuildxBuild) -> Iterator[str]:
    yield from ("type=image", f"name={build.reference}", "push=true", "oci-mediatypes=true")
    if build.compression is not None:
        # Without force-compression: the base's layers stay as they are, and are mounted rather than uploaded.
        yield f"compression={build.compression}"
    # No registry.insecure: with it, BuildKit tries TLS alone, also where its configuration or loopback would say plain HTTP.
    yield "rewrite-timestamp=true"
    yield from (f"annotation.{name}={value}" for name, value in sorted(build.annotations.items()))


def cache_place(build: BuildxBuild, config: BuildxConfig) -> str | None:
    """Return where builders share what they have made, ``host/repository`` with or without a tag; None for nowhere."""
    return f"{build.repository}:{_CACHE_TAG}" if config.cache == BESIDE_IMAGES else config.cache


def _cache_options(build: BuildxBuild, config: BuildxConfig) -> Iterator[str]:
    """Yield a cache for this environment, and one of whichever was built last, for those that have a package more."""
    place = cache_place(build, config)
    if place is None:
        return
    shared = place if ":" in place.rpartition("/")[2] else f"{place}:{_CACHE_TAG}"
    # An image manifest of OCI's media types is what Amazon ECR accepts of a cache.
    written = ("mode=max", "image-manifest=true", "oci-mediatypes=true", "ignore-error=true")
    compression = (f"compression={build.compression}",) if build.compression else ()
    for reference in (f"{shared}-{build.cache_key}", shared) if build.cache_key else (shared,):
        place_fields = ("type=registry", f"ref={reference}")
        yield from ("--cache-from", _comma_separated(place_fields))
        yield from ("--cache-to", _comma_separated((*place_fields, *written, *compression)))


def _comma_separated(fields: Iterator[str] | tuple[str, ...]) -> str:
    """Return `fields` as one line of CSV, which is how buildx reads them."""
    quoted = ('"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field for field in fields)
    return ",".join(quoted)


def _switch(*, on: bool) -> str:
    return "true" if on else "false"
