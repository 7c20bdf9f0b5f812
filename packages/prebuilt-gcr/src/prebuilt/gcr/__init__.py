"""The registry ``gcr``: Google's Artifact Registry, also by names of Container Registry, with no ``docker login``."""

from prebuilt.gcr.registry import GCRRegistry

__all__ = ["GCRRegistry"]
