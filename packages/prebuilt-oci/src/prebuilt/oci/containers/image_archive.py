"""Image archives: an image as ``docker load`` and ``podman load`` read it, whatever their version."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prebuilt.oci.containers.image import ImageLayer, RunnableImage
from prebuilt.oci.media_types import DOCKER_LAYER_GZIP, OCI_LAYER_GZIP
from prebuilt.oci.tar_header import END_OF_ARCHIVE, REGULAR, padding, tar_header

if TYPE_CHECKING:
    from prebuilt.oci.repository import Repository

_GZIP = {OCI_LAYER_GZIP, DOCKER_LAYER_GZIP}


def image_archive(
    image: RunnableImage, config: bytes, repository: Repository, *, tag: str, known_layers: int = 0
) -> Iterator[bytes]:
    """Yield the bytes of an image in the form of ``docker save`` before version 25, which every version of Docker and Podman reads.

    Layers are passed through with gzip and uncompressed else: Docker reads zstd from version 23 on.

    Args:
        image: What goes into it.
        config: Its configuration, byte for byte: its digest is the image's id in Docker.
        repository: Where the layers are.
        tag: What the image is called after it was loaded.
        known_layers: How many layers, from the bottom, the reader has already; they are named but left out.

    Raises:
        RegistryError: A layer could not be read.
        DigestMismatchError: A layer is damaged.
    """
    names = [f"{layer.diff_id.removeprefix('sha256:')}.tar" for layer in image.layers]
    config_name = f"{image.config.digest.removeprefix('sha256:')}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": names}]
    yield from _member(config_name, len(config), (config,))
    yielded = set(names[:known_layers])
    for name, layer in zip(names, image.layers, strict=True):
        if name not in yielded:  # an image may have the same layer twice
            yielded.add(name)
            yield from _layer(name, layer, repository)
    data = json.dumps(manifest).encode()
    yield from _member("manifest.json", len(data), (data,))
    yield END_OF_ARCHIVE


def _layer(name: str, layer: ImageLayer, repository: Repository) -> Iterator[bytes]:
    from prebuilt.oci.compression import decompress

    def plain() -> Iterator[bytes]:
        with repository.open_blob(layer.descriptor) as chunks:
            yield from decompress(chunks, layer.descriptor.media_type)

    if layer.descriptor.media_type in _GZIP:
        with repository.open_blob(layer.descriptor) as chunks:
            yield from _member(name, layer.descriptor.size, chunks)
    else:  # a tar wants sizes first; reading twice is faster than a file of this size on the way
        yield from _member(name, sum(len(piece) for piece in plain()), plain())


def _member(name: str, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield tar_header(name, REGULAR, mode=0o644, size=size)
    yield from pieces
    yield padding(size)
