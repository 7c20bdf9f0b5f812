"""Base images as they are pushed: layers, the manifest of one platform, the index of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prebuilt.core.canonical import canonical_json
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.platforms import Platform
from prebuilt.core.spec import DEFAULT_PATH, Compression
from prebuilt.core.tree import Entry
from prebuilt.oci.extend import EPOCH
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.layer import WrittenLayer, write_layer
from prebuilt.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from prebuilt.oci.repository import Repository
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.machine import CERTIFICATES_PATH, certificates


def push_layer(
    repository: Repository, entries: Sequence[Entry], *, scratch: Path, compression: Compression = "gzip"
) -> WrittenLayer:
    """Push a layer of `entries`, written to the file `scratch` first."""
    with scratch.open("wb") as file:
        layer = write_layer(entries, file, compression=compression)
    repository.push_blob(layer.descriptor, lambda: scratch.open("rb"))
    return layer


def push_manifest(
    repository: Repository, platform: Platform, layers: Sequence[WrittenLayer], *, python_version: str | None = None
) -> Descriptor:
    """Push the configuration and manifest of a base image; return what it became. `python_version` is the official images'."""
    config = push_bytes(repository, canonical_json(_config(platform, layers, python_version)), OCI_CONFIG)
    manifest = ImageManifest(config=config, layers=tuple(layer.descriptor for layer in layers))
    return repository.put_manifest(manifest.descriptor.digest, OCI_MANIFEST, manifest.to_bytes())


def tag_platforms(repository: Repository, tag: str, manifests: Mapping[Platform, Descriptor]) -> str:
    """Tag what was pushed for each platform, as an index if there are several; return the reference."""
    if len(manifests) == 1:
        (only,) = manifests.values()
        manifest = repository.get_manifest(only.digest)
        assert manifest is not None, f"{only.digest} was pushed just now"
        repository.put_manifest(tag, OCI_MANIFEST, manifest.data)
        return f"{repository.name}:{tag}"
    entries = [
        manifest.to_json() | {"platform": {"os": platform.os, "architecture": platform.architecture}}
        for platform, manifest in manifests.items()
    ]
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    repository.put_manifest(tag, OCI_INDEX, index)
    return f"{repository.name}:{tag}"


def _config(platform: Platform, layers: Sequence[WrittenLayer], python_version: str | None) -> dict[str, Any]:
    env = {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8"}
    if certificates() is not None:
        env["SSL_CERT_FILE"] = f"/{CERTIFICATES_PATH}"
    if python_version:
        env["PYTHON_VERSION"] = python_version
    return {
        "created": EPOCH,
        "os": platform.os,
        "architecture": platform.architecture,
        "config": {
            "Cmd": ["python3" if python_version else "sh"],
            "Env": [f"{name}={value}" for name, value in env.items()],
        },
        "history": [{"created": EPOCH, "created_by": "files of this machine"} for _ in layers],
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
