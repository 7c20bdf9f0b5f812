"""The registry ``dockerhub`` of metaflow-prebuilt."""

from prebuilt.dockerhub.registry import DockerHubRegistry

__all__ = ["DockerHubRegistry"]
