"""What Docker does for metaflow-prebuilt: the builder ``docker`` and the registry ``local``."""

from prebuilt.docker.builder import LocalDockerBuildService
from prebuilt.docker.registry import LocalRegistry

__all__ = ["LocalDockerBuildService", "LocalRegistry"]
