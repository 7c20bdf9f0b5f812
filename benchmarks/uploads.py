"""How many bytes a registry received: the blobs that it has now and had not before."""

from __future__ import annotations

from pathlib import Path


def blob_sizes(registry_folder: Path) -> dict[str, int]:
    """Return the size of each blob, manifests and configs included, in the data folder of a distribution registry."""
    blobs = registry_folder / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
    return {data.parent.name: data.stat().st_size for data in blobs.glob("*/*/data")}


def uploaded_bytes(before: dict[str, int], after: dict[str, int]) -> int:
    """Return the bytes of the blobs that came between two looks."""
    return sum(size for digest, size in after.items() if digest not in before)
