"""Our client and the distribution project's registry, and skopeo as the judge of what we pushed."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import RegistryError
from prebuilt.core.progress import LineProgress
from prebuilt.core.settings import Settings
from prebuilt.core.tree import BytesContent, FileEntry
from prebuilt.oci import upload
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.copy import copy_layers
from prebuilt.oci.documents import RepositoryDocuments
from prebuilt.oci.image import ImageManifest, descriptor_of
from prebuilt.oci.layer import write_layer
from prebuilt.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.engines.wanted import wanted_engine, wanted_program

pytestmark = pytest.mark.registry

BLOB = random.Random(7).randbytes((5 << 20) + 11)  # noqa: S311 - any bytes that do not repeat
SETTINGS = Settings({"HOME": "/nowhere"}, {})


@pytest.fixture(scope="module", params=["installed", "current"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry for the tests of this file: of release 2, and of release 3."""
    folder = tmp_path_factory.mktemp("registry")
    with wanted_engine(), distribution_registry(folder, release=request.param) as running:
        yield running


@pytest.fixture
def repository(host: str, request: pytest.FixtureRequest) -> RegistryRepository:
    """A repository of the test's own."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return RegistryRepository(f"{host}/tests/{name}", settings=SETTINGS)


def read(repository: RegistryRepository, descriptor: Descriptor) -> bytes:
    """Pull a blob."""
    with repository.open_blob(descriptor) as chunks:
        return b"".join(chunks)


def push_image(repository: RegistryRepository, tag: str) -> ImageManifest:
    """Push an image of one file."""
    buffer = io.BytesIO()
    entry = FileEntry(path="opt/hello", content=BytesContent(b"hello\n"))
    layer = write_layer([entry], buffer, compression="gzip")
    push_bytes(repository, buffer.getvalue(), layer.descriptor.media_type)
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
    pushed = push_bytes(repository, json.dumps(config).encode(), OCI_CONFIG)
    manifest = ImageManifest(config=pushed, layers=(layer.descriptor,))
    repository.put_manifest(tag, OCI_MANIFEST, manifest.to_bytes())
    return manifest


@pytest.mark.parametrize("data", [BLOB, b""], ids=["5 MiB", "empty"])
def test_blobs_go_there_and_back(repository: RegistryRepository, data: bytes) -> None:
    """In one PUT; a second push sends nothing."""
    descriptor = descriptor_of(data, "application/octet-stream")
    assert not repository.has_blob(descriptor.digest)

    push_bytes(repository, data)

    assert repository.has_blob(descriptor.digest)
    assert read(repository, descriptor) == data
    repository.push_blob(descriptor, lambda: pytest.fail("it was read again"))


def test_blobs_go_in_chunks(repository: RegistryRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry puts the chunks together."""
    monkeypatch.setattr(upload, "CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(upload, "MONOLITHIC_LIMIT_BYTES", 0)

    assert read(repository, push_bytes(repository, BLOB)) == BLOB


def test_a_broken_chunk_is_taken_up(repository: RegistryRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the registry says of an upload that broke off is understood: the rest is sent, and the whole is right."""
    monkeypatch.setattr(upload, "CHUNK_BYTES", 2 << 20)
    monkeypatch.setattr(upload, "MONOLITHIC_LIMIT_BYTES", 0)
    monkeypatch.setattr(upload, "PIECE_BYTES", 1 << 18)
    send, refused = upload.BlobUpload._send_chunk, []

    def send_part(self: upload.BlobUpload, place: object, start: int, stop: int) -> int:
        if start and not refused:
            refused.append(start)
            send(self, place, start, start + (1 << 19))  # type: ignore[arg-type]
            error = RegistryError("send a chunk", reason="it broke off", status=416)
            raise error
        return send(self, place, start, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(upload.BlobUpload, "_send_chunk", send_part)

    assert read(repository, push_bytes(repository, BLOB)) == BLOB
    assert refused


def test_blobs_go_while_they_are_written(
    repository: RegistryRepository, push_while_written: Callable[[RegistryRepository], None]
) -> None:
    """In one PATCH whose length nobody knows when it begins."""
    push_while_written(repository)


def test_wrong_bytes_are_refused(repository: RegistryRepository) -> None:
    """The registry's own code comes through."""
    descriptor = descriptor_of(BLOB, "application/octet-stream")
    with pytest.raises(RegistryError, match="400 DIGEST_INVALID"):
        repository.push_blob(descriptor, lambda: io.BytesIO(BLOB[::-1]))


def test_blobs_are_mounted_and_copied(host: str, repository: RegistryRepository, tmp_path: Path) -> None:
    """Within the registry a layer is linked; what the source does not have is not."""
    descriptors = [push_bytes(repository, BLOB[:size]) for size in (10, 100_000)]
    target = RegistryRepository(f"{host}/tests/mounted", settings=SETTINGS)
    progress = LineProgress(lambda _: None).image("test")

    copy_layers(
        descriptors, repository, target, progress=progress, cancellation=Cancellation(), scratch=tmp_path / "scratch"
    )

    assert all(target.has_blob(one.digest) for one in descriptors)
    assert not target.mount_blob(descriptor_of(b"nowhere", "x"), repository.name)


def test_manifests_and_documents(repository: RegistryRepository) -> None:
    """By tag and by digest; absence is None; a manifest without its blobs is refused."""
    assert repository.resolve("1") is None
    assert repository.get_manifest("1") is None

    manifest = push_image(repository, "1")
    RepositoryDocuments(repository).put("lock-1", b'{"a":1}')

    assert repository.resolve("1") == manifest.descriptor
    got = repository.get_manifest(manifest.descriptor.digest)
    assert got is not None
    assert got.data == manifest.to_bytes()
    assert RepositoryDocuments(repository).get("lock-1") == b'{"a":1}'
    missing = ImageManifest(config=descriptor_of(b"nowhere", OCI_CONFIG), layers=())
    with pytest.raises(RegistryError, match="BLOB_UNKNOWN"):
        repository.put_manifest("2", OCI_MANIFEST, missing.to_bytes())


def test_skopeo_reads_what_we_pushed(repository: RegistryRepository, tmp_path: Path) -> None:
    """A copy by another client has the same digest."""
    wanted_program("skopeo", brought_by="apt-get install skopeo")
    manifest = push_image(repository, "1")

    copied = subprocess.run(
        ["skopeo", "copy", "--src-tls-verify=false", f"docker://{repository.name}:1", f"oci:{tmp_path / 'copy'}:1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert copied.returncode == 0, copied.stderr
    index = json.loads((tmp_path / "copy" / "index.json").read_text())
    assert index["manifests"][0]["digest"] == manifest.descriptor.digest
