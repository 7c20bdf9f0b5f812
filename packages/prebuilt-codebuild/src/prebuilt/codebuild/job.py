"""One image, as the buildspec is told about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from prebuilt.codebuild.config import CodeBuildConfig
from prebuilt.core.build_service import check_registry
from prebuilt.core.spec import Compression, ImageSpec
from prebuilt.oci.amazon import ecr_region
from prebuilt.oci.build_cache import BESIDE_IMAGES
from prebuilt.oci.dockerfile_images import pulled_repositories
from prebuilt.oci.reference import parse_reference, split_repository

# Begins as the tags that repositories with immutable tags leave free for what moves: the registry ecr makes them so.
_CACHE_TAG = "layers-buildcache"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """An image to build and push.

    Attributes:
        reference: Where to: ``host/repository:tag``.
        repository: Its ``host/repository``, in full.
        platform: ``linux/arm64``; None for the environment's own.
        compression: Of the layers that are added; None for BuildKit's choice.
        annotations: Of the manifest.
        cache_key: What the cached layers of earlier versions of this image are found by.
        pulled: Repositories of the images that its Dockerfile is built on.
    """

    reference: str
    repository: str
    platform: str | None = None
    compression: Compression | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    cache_key: str = ""
    pulled: tuple[str, ...] = ()

    @classmethod
    def to(cls, reference: str) -> BuildJob:
        """Return the build of anything that is pushed as `reference`.

        Raises:
            BuildError: The reference is to an image layout.
            InvalidValueError: It is no reference.
        """
        check_registry(reference, "CodeBuild")
        return cls(reference=reference, repository=parse_reference(reference).repository)

    def of(self, spec: ImageSpec) -> BuildJob:
        """Return this build as that of a spec."""
        return replace(
            self,
            platform=str(spec.base.platform),
            compression=spec.compression,
            annotations=spec.annotations,
            cache_key=spec.cache_key,
        )

    def on(self, dockerfile: str) -> BuildJob:
        """Return this build as that of `dockerfile`."""
        return replace(self, pulled=pulled_repositories(dockerfile))

    @property
    def host(self) -> str:
        """Host of the registry."""
        return split_repository(self.repository)[0]

    @property
    def is_arm64(self) -> bool:
        """Whether the image is for arm64."""
        return self.platform is not None and self.platform.startswith("linux/arm64")

    def variables(self, key: str, config: CodeBuildConfig) -> dict[str, str]:
        """Return the variables of the build whose context is at `key`; the first two are as they were published."""
        return {
            "BUILD_CONTEXT_KEY": key,
            "IMAGE_TAG": self.reference,
            "IMAGE_PLATFORM": self.platform or "",
            "IMAGE_OUTPUT": ",".join(self._output()),
            "IMAGE_COMPRESSION": self.compression or "",
            "IMAGE_CACHES": " ".join(self._caches(config)),
            "BUILDKIT_IMAGE": config.buildkit_image,
            "ECR_REGISTRIES": " ".join(
                f"{host}={region}" for host, region in sorted(self._amazon_registries(config).items())
            ),
            "REGISTRY_HOST": "" if ecr_region(self.host) else _login_name(self.host),
        }

    def secret_variables(self, config: CodeBuildConfig) -> dict[str, str]:
        """Return the variables that CodeBuild fills from Secrets Manager: what each names is a secret's field, not its value."""
        if config.registry_secret is None or ecr_region(self.host):
            return {}
        return {
            "REGISTRY_USER": f"{config.registry_secret}:username",
            "REGISTRY_PASSWORD": f"{config.registry_secret}:password",
        }

    def _output(self) -> Iterator[str]:
        yield from ("type=image", _csv(f"name={self.reference}"), "push=true", "oci-mediatypes=true")
        if self.compression is not None:
            # Without force-compression: the base's layers stay as they are, and are mounted rather than uploaded.
            yield f"compression={self.compression}"
        yield "rewrite-timestamp=true"
        yield from (_csv(f"annotation.{name}={value}") for name, value in sorted(self.annotations.items()))

    def _caches(self, config: CodeBuildConfig) -> Iterator[str]:
        """Yield a cache for this environment, and one of whichever was built last, for those that have a package more."""
        place = self._cache_place(config)
        if place is None:
            return
        shared = place if ":" in place.rpartition("/")[2] else f"{place}:{_CACHE_TAG}"
        yield from (f"{shared}-{self.cache_key}", shared) if self.cache_key else (shared,)

    def _cache_place(self, config: CodeBuildConfig) -> str | None:
        return f"{self.repository}:{_CACHE_TAG}" if config.cache == BESIDE_IMAGES else config.cache

    def _amazon_registries(self, config: CodeBuildConfig) -> dict[str, str]:
        """Return the region of each registry of Amazon ECR that the build pushes to or pulls from, BuildKit's image among it."""
        beside = filter(None, (config.buildkit_image, self._cache_place(config)))
        repositories = (self.repository, *self.pulled, *(parse_reference(each).repository for each in beside))
        hosts = {split_repository(each)[0] for each in repositories}
        return {host: region for host in hosts if (region := ecr_region(host))}


def _login_name(host: str) -> str:
    """Return what `docker login` calls the registry: Docker Hub's has no name there that is its host."""
    return "" if host == "docker.io" else host


def _csv(text: str) -> str:
    """Return `text` as one field of the line of CSV that buildx reads."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text
