"""Digests and content descriptors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from prebuilt.core.errors import InvalidValueError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_digest(digest: str) -> str:
    """Return `digest` if it reads ``sha256:`` and 64 lower-case hex digits.

    Source: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidValueError("a digest", digest, reason="expected sha256: and 64 lower-case hex digits")
    return digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Where one content is and how large: media type, digest and size in bytes.

    Source: https://github.com/opencontainers/image-spec/blob/main/descriptor.md
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the digest and the size; freeze the annotations."""
        check_digest(self.digest)
        if self.size < 0:
            raise InvalidValueError("a descriptor's size", self.size, reason="it is negative")
        object.__setattr__(self, "annotations", MappingProxyType(dict(self.annotations)))

    def to_json(self) -> dict[str, Any]:
        """Return the form that manifests hold."""
        fields = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return fields | ({"annotations": dict(self.annotations)} if self.annotations else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Descriptor:
        """Read the form that manifests hold; fields that are not known here are dropped."""
        try:
            return cls(
                media_type=str(data["mediaType"]),
                digest=str(data["digest"]),
                size=int(data["size"]),
                annotations=data.get("annotations") or {},
            )
        except (KeyError, TypeError) as error:
            raise InvalidValueError("a descriptor", data, reason=f"no {error}") from error
