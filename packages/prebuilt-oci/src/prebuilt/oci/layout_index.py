"""``index.json`` of an image layout: which manifests have which tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import InvalidValueError
from prebuilt.oci.image import parse_json_object
from prebuilt.oci.media_types import OCI_INDEX
from prebuilt.oci.reference import DEFAULT_TAG

REF_NAME = "org.opencontainers.image.ref.name"
"""Source: https://github.com/opencontainers/image-spec/blob/main/annotations.md"""


@dataclass(frozen=True, slots=True)
class LayoutIndex:
    """The whole of ``index.json``; what other tools put there is kept."""

    data: Mapping[str, Any]

    @classmethod
    def empty(cls) -> LayoutIndex:
        """Return the index of a new layout."""
        return cls({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})

    @classmethod
    def parse(cls, data: bytes) -> LayoutIndex:
        """Read the file.

        Raises:
            InvalidValueError: It is damaged.
        """
        value = parse_json_object(data, "the index of an image layout")
        entries = value.get("manifests") or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidValueError(
                "the index of an image layout", data[:100], reason="its manifests are not a list of objects"
            )
        for entry in entries:
            Descriptor.from_json(entry)
        return cls(value | {"manifests": entries})

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: the same for the same tags, in whatever order they came."""
        ordered = sorted(self.data["manifests"], key=lambda entry: (_tag(entry) or "", entry["digest"]))
        return canonical_json(dict(self.data) | {"manifests": ordered})

    def tags(self) -> dict[str, Descriptor]:
        """Return what each tag names. Of equal tags, which other tools may leave, the last counts."""
        tagged = ((_tag(entry), entry) for entry in self.data["manifests"])
        return {tag: _descriptor(entry) for tag, entry in tagged if tag is not None}

    def find(self, reference: str) -> Descriptor | None:
        """Return the manifest of a tag or digest; None if it is not listed.

        As for skopeo, a layout's only manifest need not have a tag: it is the ``latest``.
        """
        entries = self.data["manifests"]
        if ":" in reference:
            return next((_descriptor(entry) for entry in entries if entry["digest"] == reference), None)
        tagged = self.tags().get(reference)
        if tagged is None and reference == DEFAULT_TAG and len(entries) == 1 and _tag(entries[0]) is None:
            return _descriptor(entries[0])
        return tagged

    def with_manifest(self, descriptor: Descriptor, tag: str | None) -> LayoutIndex:
        """Return the index in which `tag` names the manifest; without a tag, one that lists it."""
        entries = self.data["manifests"]
        if tag is None:
            if any(entry["digest"] == descriptor.digest for entry in entries):
                return self
            kept, annotations = entries, {}
        else:
            kept = [entry for entry in entries if not _is_replaced(entry, descriptor, tag)]
            annotations = {"annotations": {REF_NAME: tag}}
        new = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size} | annotations
        return LayoutIndex(dict(self.data) | {"manifests": [*kept, new]})


def _tag(entry: Mapping[str, Any]) -> str | None:
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return None if name is None else str(name)


def _descriptor(entry: Mapping[str, Any]) -> Descriptor:
    """Return the manifest's descriptor as a registry would give it: the tag is none of its annotations."""
    return Descriptor(media_type=entry["mediaType"], digest=entry["digest"], size=entry["size"])


def _is_replaced(entry: Mapping[str, Any], descriptor: Descriptor, tag: str) -> bool:
    return _tag(entry) == tag or (_tag(entry) is None and entry["digest"] == descriptor.digest)
