"""The __what__ ``__name__`` of metaflow-prebuilt."""

__imports__

__all__ = [__exported__]
