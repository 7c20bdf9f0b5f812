"""Documents are kept beside images, in layouts and in registries alike."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.documents import DocumentStore
from prebuilt.core.errors import DigestMismatchError, InvalidValueError, RegistryError
from prebuilt.oci.documents import ARTIFACT_TYPE, MAX_EMBEDDED_BYTES, RepositoryDocuments
from prebuilt.oci.image import ImageManifest, descriptor_of
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_EMPTY, OCI_MANIFEST
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.oci.transport import close_connections
from prebuilt.testing.registry import InMemoryRegistry

_: type[DocumentStore] = RepositoryDocuments


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """A registry in this process."""
    with InMemoryRegistry() as server:
        yield server
        close_connections()


@pytest.fixture(params=["layout", "registry"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    """A repository of either kind."""
    if request.param == "layout":
        return LayoutRepository(tmp_path / "layout")
    registry: InMemoryRegistry = request.getfixturevalue("registry")
    return open_repository(registry.repository("docs"))


@pytest.fixture
def documents(repository: Repository) -> RepositoryDocuments:
    """The documents of a repository."""
    return RepositoryDocuments(repository)


@pytest.mark.parametrize("size", [0, 1, MAX_EMBEDDED_BYTES, MAX_EMBEDDED_BYTES + 1, 3_000_000])
def test_round_trip(documents: RepositoryDocuments, size: int) -> None:
    """A document of any size comes back as it was."""
    data = os.urandom(size)
    assert documents.get("lock-1") is None
    documents.put("lock-1", data)
    assert documents.get("lock-1") == data
    assert documents.get("lock-2") is None


def test_the_last_writer_wins(documents: RepositoryDocuments) -> None:
    """A document takes the place of an older one; writing the same again changes nothing."""
    documents.put("x", b"1")
    before = documents.repository.resolve("x")
    documents.put("x", b"1")
    assert documents.repository.resolve("x") == before
    documents.put("x", b"2")
    assert documents.get("x") == b"2"


def test_form(documents: RepositoryDocuments) -> None:
    """A document is an artifact with the empty config, whose only layer is a blob of its own as well as embedded."""
    documents.put("x", b'{"a":1}')
    stored = documents.repository.get_manifest("x")
    assert stored is not None
    value = json.loads(stored.data)
    assert value["artifactType"] == ARTIFACT_TYPE
    assert value["mediaType"] == OCI_MANIFEST
    assert value["config"]["mediaType"] == OCI_EMPTY
    assert base64.b64decode(value["layers"][0]["data"]) == b'{"a":1}'
    manifest = ImageManifest.parse(stored.data)
    assert manifest.layers[0].media_type == "application/json"
    with documents.repository.open_blob(manifest.layers[0]) as chunks:
        assert b"".join(chunks) == b'{"a":1}'


def test_one_request_reads_a_small_document(registry: InMemoryRegistry) -> None:
    """A small document is read by one GET."""
    documents = RepositoryDocuments(open_repository(registry.repository("docs")))
    documents.put("x", b"small")
    assert documents.get("x") == b"small"
    registry.forget_requests()
    assert documents.get("x") == b"small"
    assert registry.count() == 1


def test_a_registry_that_fails_is_not_one_without_the_document(registry: InMemoryRegistry) -> None:
    """Where the registry refuses, an error comes, never None."""
    registry.fail("GET", "manifests/x", status=403, times=10)
    with pytest.raises(RegistryError):
        RepositoryDocuments(open_repository(registry.repository("docs"))).get("x")


def test_a_tag_that_is_an_image(documents: RepositoryDocuments) -> None:
    """A tag that names something else is refused, not misread."""
    config = descriptor_of(b"{}", "application/vnd.oci.image.config.v1+json")
    documents.repository.push_blob(config, lambda: io.BytesIO(b"{}"))
    documents.repository.put_manifest("x", OCI_MANIFEST, ImageManifest(config=config, layers=()).to_bytes())
    with pytest.raises(InvalidValueError, match="not a document"):
        documents.get("x")


@pytest.mark.parametrize(("data", "error"), [("bm90IGl0", DigestMismatchError), ("!", InvalidValueError)])
def test_damaged_data(documents: RepositoryDocuments, data: str, error: type[Exception]) -> None:
    """Embedded bytes that are not what the descriptor says are refused."""
    documents.put("x", b"right")
    stored = documents.repository.get_manifest("x")
    assert stored is not None
    value = json.loads(stored.data)
    value["layers"][0]["data"] = data
    documents.repository.put_manifest("x", OCI_MANIFEST, json.dumps(value).encode())
    with pytest.raises(error):
        documents.get("x")


@pytest.mark.parametrize("name", ["", "Upper", "a/b", ".x", "x" * 121])
def test_names(documents: RepositoryDocuments, name: str) -> None:
    """A name that cannot be a tag is refused."""
    with pytest.raises(InvalidValueError):
        documents.get(name)
    with pytest.raises(InvalidValueError):
        documents.put(name, b"")
