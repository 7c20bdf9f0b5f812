"""What Docker does for metaflow-prebuilt: the registry ``local``."""

from prebuilt.docker.registry import LocalRegistry

__all__ = ["LocalRegistry"]
