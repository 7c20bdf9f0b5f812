"""The contract of builders, at its documented path. For the deploying machine: tasks do not import it."""

from prebuilt.core.build_service import DockerBuildService, DockerfileBuildOptions

__all__ = ["DockerBuildService", "DockerfileBuildOptions"]
