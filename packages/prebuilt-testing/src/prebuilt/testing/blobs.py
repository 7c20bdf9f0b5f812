"""Blobs that are small enough to be written out in a test."""

from __future__ import annotations

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.tree import BytesContent
from prebuilt.oci.image import descriptor_of
from prebuilt.oci.repository import Repository


def push_bytes(repository: Repository, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    """Push a blob; return its descriptor."""
    descriptor = descriptor_of(data, media_type)
    repository.push_blob(descriptor, BytesContent(data).open)
    return descriptor
