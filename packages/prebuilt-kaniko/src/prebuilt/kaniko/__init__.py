"""The builder ``kaniko`` of metaflow-prebuilt."""

from prebuilt.kaniko.builder import KanikoBuildService

__all__ = ["KanikoBuildService"]
