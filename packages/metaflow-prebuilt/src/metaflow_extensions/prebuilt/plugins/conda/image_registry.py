"""The contract of registries, at its documented path. For the deploying machine: tasks do not import it."""

from prebuilt.core.image_registry import ImageRegistry

__all__ = ["ImageRegistry"]
