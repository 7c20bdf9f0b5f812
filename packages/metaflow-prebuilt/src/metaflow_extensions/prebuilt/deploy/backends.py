"""Which builder and which registry are used."""

from __future__ import annotations

from dataclasses import dataclass

from metaflow_extensions.prebuilt.deploy.default_builder import DefaultBuilder
from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.canonical import content_id
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plugins import BUILD_SERVICES, IMAGE_REGISTRIES
from prebuilt.core.progress import Progress
from prebuilt.core.settings import Settings

BUILD_SERVICE, IMAGE_REGISTRY = "PREBUILT_BUILD_SERVICE", "PREBUILT_IMAGE_REGISTRY"
DEFAULT_BUILD_SERVICE, DEFAULT_IMAGE_REGISTRY = "docker", "dockerhub"
EMBEDDED_BUILD_SERVICE, EMBEDDED_IMAGE_REGISTRY = "native", "layout"
GENERAL_IMAGE_REGISTRY, GENERAL_SETTING = "oci", "PREBUILT_REGISTRY"

_OF_REGISTRIES = (
    IMAGE_REGISTRY,
    GENERAL_SETTING,
    "PREBUILT_IMAGE_NAMESPACE",
    "PREBUILT_LAYOUT",
    "PREBUILT_DOCKERHUB_USER",
    "PREBUILT_ECR_ACCOUNT",
    "PREBUILT_ECR_REGION",
    "PREBUILT_ECR_DOCUMENTS_REPOSITORY",
    "PREBUILT_GCR_PROJECT",
    "PREBUILT_GCR_HOST",
    "PREBUILT_GCR_REPOSITORY",
    "PREBUILT_GCR_DOCUMENTS_REPOSITORY",
    "PREBUILT_LOCAL_REGISTRY_PUSH",
    "PREBUILT_LOCAL_REGISTRY_PULL",
    "PREBUILT_LOCAL_REGISTRY_PORT",
)


@dataclass(frozen=True, kw_only=True)
class Backends:
    """A builder and a registry."""

    builder: DockerBuildService
    registry: ImageRegistry


def choose_backends(settings: Settings, progress: Progress) -> Backends:
    """Return what the settings name, or the documented default, or what is embedded where the default cannot work.

    What is set is never overridden. One line says when the embedded ones step in. No engine and no registry is asked: where it
    takes an engine to know what can build, :class:`DefaultBuilder` asks when there is something to build.

    Raises:
        PluginError: What is set is not installed or cannot be made.
        SettingError: What it needs is not set, or malformed.
    """
    registry, builder = _registry_name(settings), settings.get(BUILD_SERVICE)
    said = []
    if registry is None:
        registry = EMBEDDED_IMAGE_REGISTRY
        said.append(f"kept in a folder of this machine (METAFLOW_{IMAGE_REGISTRY} names another registry)")
    if builder is None:
        # A daemon cannot push into a folder, so the embedded registry brings the embedded builder with it.
        if registry != EMBEDDED_IMAGE_REGISTRY and DEFAULT_BUILD_SERVICE in BUILD_SERVICES.installed():
            default = DefaultBuilder(DEFAULT_BUILD_SERVICE, EMBEDDED_BUILD_SERVICE, settings, progress)
            return Backends(builder=default, registry=IMAGE_REGISTRIES.get(registry))
        builder = EMBEDDED_BUILD_SERVICE
        said.append(f"built without Docker (METAFLOW_{BUILD_SERVICE} names another builder)")
    if said:
        progress.note(f"prebuilt: images are {' and '.join(said)}")
    return Backends(builder=BUILD_SERVICES.get(builder), registry=IMAGE_REGISTRIES.get(registry))


def registry_is_chosen(settings: Settings) -> bool:
    """Return whether somebody said where images are kept."""
    return settings.get(IMAGE_REGISTRY) is not None or settings.get(GENERAL_SETTING) is not None


def registry_identity(settings: Settings) -> str:
    """Return 12 hex digits that stand for what is set about where images are kept; the registry is not asked."""
    return content_id({name: settings.get(name) for name in _OF_REGISTRIES})[:12]


def _registry_name(settings: Settings) -> str | None:
    """Return the registry that is set, by its name or by what only it needs; None if none is."""
    named = settings.get(IMAGE_REGISTRY)
    if named is not None:
        return named
    if settings.get(GENERAL_SETTING) is not None:
        return GENERAL_IMAGE_REGISTRY
    installed = DEFAULT_IMAGE_REGISTRY in IMAGE_REGISTRIES.installed()
    return DEFAULT_IMAGE_REGISTRY if installed and settings.get("PREBUILT_DOCKERHUB_USER") is not None else None
