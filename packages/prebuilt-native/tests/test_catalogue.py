"""The catalogue of layers: a hint that survives damage and concurrent writers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import ForbiddenError
from prebuilt.native import catalogue as module
from prebuilt.native.catalogue import Catalogue, KnownLayer
from prebuilt.oci.compression import layer_media_type
from prebuilt.oci.documents import RepositoryDocuments
from prebuilt.oci.open import open_repository
from prebuilt.testing.conformance.materials import push_small_base
from prebuilt.testing.registry import InMemoryRegistry


def layer(digit: str) -> KnownLayer:
    """Return a layer whose digests are made of one digit."""
    digest = "sha256:" + digit * 64
    return KnownLayer(descriptor=Descriptor(media_type="m", digest=digest, size=5), diff_id=digest)


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """Return an empty registry."""
    with InMemoryRegistry() as registry:
        yield registry


@pytest.fixture
def in_registry(registry: InMemoryRegistry) -> Catalogue:
    """Return an empty catalogue in a registry."""
    documents = RepositoryDocuments(open_repository(registry.repository("team/env")))
    return Catalogue(documents=documents, name="layers")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """Return an empty catalogue in a folder."""
    return Catalogue(documents=FolderDocuments(tmp_path), name="layers")


def test_what_was_added_is_read(catalogue: Catalogue) -> None:
    """Entries accumulate over writers, oldest first."""
    assert catalogue.read() == {}
    catalogue.add({"b": layer("b")})
    catalogue.add({"a": layer("a")})
    assert list(catalogue.read().items()) == [("b", layer("b")), ("a", layer("a"))]


def test_nothing_is_written_when_nothing_is_new(catalogue: Catalogue, tmp_path: Path) -> None:
    """A build that reused every layer leaves the document alone."""
    catalogue.add({"a": layer("a")})
    before = (tmp_path / "layers").stat().st_mtime_ns
    catalogue.add({"a": layer("a")})
    catalogue.add({})
    assert (tmp_path / "layers").stat().st_mtime_ns == before


def test_a_layer_that_was_made_anew_replaces_the_known_one(catalogue: Catalogue) -> None:
    """The latest word on a key counts."""
    catalogue.add({"a": layer("a")})
    catalogue.add({"a": layer("b")})
    assert catalogue.read() == {"a": layer("b")}


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"layers": [["k", {"digest": "x"}]]}', b"[]", b'{"layers": 3}'])
def test_a_damaged_catalogue_is_none(
    catalogue: Catalogue, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs time, not correctness, and the next writer mends it."""
    (tmp_path / "layers").write_bytes(damage)
    assert catalogue.read() == {}
    assert "damaged" in caplog.text
    catalogue.add({"a": layer("a")})
    assert catalogue.read() == {"a": layer("a")}


def test_a_catalogue_whose_digest_is_wrong_is_none(
    in_registry: Catalogue, registry: InMemoryRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """What a registry gives is checked, and what is not as it was put is written anew."""
    in_registry.add({"a": layer("a")})
    registry.corrupt("manifests/layers", times=2)
    assert in_registry.read() == {}
    assert "damaged" in caplog.text
    in_registry.add({"b": layer("b")})
    assert in_registry.read() == {"b": layer("b")}


def test_an_image_in_place_of_a_catalogue_is_none(in_registry: Catalogue, registry: InMemoryRegistry) -> None:
    """Whoever gave an image the catalogue's tag loses the tag, and nobody an image."""
    place = open_repository(registry.repository("team/env"))
    base = push_small_base(place)
    image = place.get_manifest(base.digest)
    assert image is not None
    place.put_manifest("layers", image.descriptor.media_type, image.data)
    assert in_registry.read() == {}
    in_registry.add({"a": layer("a")})
    assert in_registry.read() == {"a": layer("a")}


def test_nothing_to_add_asks_for_nothing(in_registry: Catalogue, registry: InMemoryRegistry) -> None:
    """A build that made no layer leaves the registry in peace."""
    in_registry.add({})
    assert registry.count() == 0


def test_a_registry_that_does_not_answer_is_told_to_readers_and_not_to_writers(
    in_registry: Catalogue, registry: InMemoryRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever wants to use layers must know; whoever has made some has more important things to say."""
    registry.fail("GET", "manifests/layers", status=403, times=2)
    in_registry.add({"a": layer("a")})
    assert "could not be written" in caplog.text
    with pytest.raises(ForbiddenError):
        in_registry.read()


def test_the_oldest_entries_go_first(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document stays small enough for one request."""
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    for key in "abc":
        catalogue.add({key: layer(key)})
    assert list(catalogue.read()) == ["b", "c"]


def test_a_full_catalogue_is_one_request(in_registry: Catalogue, registry: InMemoryRegistry) -> None:
    """However many layers a repository has, reading what is known of them stays cheap."""
    known = KnownLayer(
        descriptor=Descriptor(media_type=layer_media_type("zstd"), digest=layer("a").diff_id, size=9_999_999_999),
        diff_id=layer("b").diff_id,
        file_list="0" * 16,
    )
    in_registry.add({f"{number:040x}": known for number in range(module.MAX_ENTRIES)})
    registry.forget_requests()
    assert len(in_registry.read()) == module.MAX_ENTRIES
    assert registry.count() == 1


def test_a_repository_that_keeps_its_tags_costs_no_image(caplog: pytest.LogCaptureFixture) -> None:
    """Where tags cannot be moved, the first catalogue stays, the log says so, and nothing fails."""
    with InMemoryRegistry(is_immutable=lambda _, __: True) as server:
        documents = RepositoryDocuments(open_repository(server.repository("team/image")))
        catalogue = Catalogue(documents=documents, name="layers")
        catalogue.add({"a": layer("a")})
        catalogue.add({"b": layer("b")})
        assert catalogue.read() == {"a": layer("a")}
    assert "TAG_INVALID" in caplog.text
