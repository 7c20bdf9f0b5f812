"""Image archives: an image as ``docker load`` and ``podman load`` read it, whatever their version."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from prebuilt.oci.containers.image import ImageLayer, RunnableImage
from prebuilt.oci.media_types import DOCKER_LAYER_GZIP, OCI_LAYER_GZIP

if TYPE_CHECKING:
    from prebuilt.oci.repository import Repository

_GZIP = {OCI_LAYER_GZIP, DOCKER_LAYER_GZIP}
_CHUNK_BYTES = 1 << 20


def write_image_archive(
    image: RunnableImage, config: bytes, repository: Repository, file: BinaryIO, *, tag: str, known_layers: int = 0
) -> None:
    """Write an image in the form of ``docker save`` before version 25, which every version of Docker and Podman reads.

    Layers are passed through with gzip and uncompressed else: Docker reads zstd from version 23 on.

    Args:
        image: What to write.
        config: Its configuration, byte for byte: its digest is the image's id in Docker.
        repository: Where the layers are.
        file: Where to; not sought in.
        tag: What the image is called after it was loaded.
        known_layers: How many layers, from the bottom, the reader has already; they are named but left out.

    Raises:
        RegistryError: A layer could not be read.
        DigestMismatchError: A layer is damaged.
        OSError: `file` could not be written.
    """
    names = [f"{layer.diff_id.removeprefix('sha256:')}.tar" for layer in image.layers]
    config_name = f"{image.config.digest.removeprefix('sha256:')}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": names}]
    with tarfile.open(fileobj=file, mode="w|", bufsize=_CHUNK_BYTES) as archive:
        _add(archive, config_name, len(config), lambda: iter((config,)))
        written = set(names[:known_layers])
        for name, layer in zip(names, image.layers, strict=True):
            if name not in written:  # an image may have the same layer twice
                written.add(name)
                _add_layer(archive, name, layer, repository)
        data = json.dumps(manifest).encode()
        _add(archive, "manifest.json", len(data), lambda: iter((data,)))


def _add_layer(archive: tarfile.TarFile, name: str, layer: ImageLayer, repository: Repository) -> None:
    from prebuilt.oci.compression import decompress

    def plain() -> Iterator[bytes]:
        with repository.open_blob(layer.descriptor) as chunks:
            yield from decompress(chunks, layer.descriptor.media_type)

    def stored() -> Iterator[bytes]:
        with repository.open_blob(layer.descriptor) as chunks:
            yield from chunks

    if layer.descriptor.media_type in _GZIP:
        _add(archive, name, layer.descriptor.size, stored)
    else:  # a tar wants sizes first; reading twice is faster than a file of this size on the way
        _add(archive, name, sum(len(piece) for piece in plain()), plain)


def _add(archive: tarfile.TarFile, name: str, size: int, pieces: Callable[[], Iterator[bytes]]) -> None:
    from prebuilt.oci.compression import ChunkReader

    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    source = pieces()
    archive.addfile(info, cast("BinaryIO", io.BufferedReader(ChunkReader(source), _CHUNK_BYTES)))
    for _ in source:  # the last chunk is checked when the next one is asked for
        pass
