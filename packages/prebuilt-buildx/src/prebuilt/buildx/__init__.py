"""The builder ``buildx`` of metaflow-prebuilt."""

from prebuilt.buildx.builder import BuildxBuildService

__all__ = ["BuildxBuildService"]
