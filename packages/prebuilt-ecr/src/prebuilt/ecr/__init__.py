"""The registry ``ecr`` of metaflow-prebuilt: Amazon ECR, with no ``docker login``."""

from prebuilt.ecr.registry import ECRRegistry

__all__ = ["ECRRegistry"]
