"""The builder ``codebuild`` of metaflow-prebuilt: AWS CodeBuild builds and pushes."""

from prebuilt.codebuild.builder import CodeBuildService

__all__ = ["CodeBuildService"]
