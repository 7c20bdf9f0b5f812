from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import CancelledError, DigestMismatchError, RegistryError
from prebuilt.oci import upload
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.copy import copy_layers
from prebuilt.oci.layout import LayoutRepository
from prebuilt.testing.registry import InMemoryRegistry


class Meter:
    """Counts what is announced and moved."""

    def __init__(self) -> None:
        self.announced = self.moved = 0
        self._lock = threading.Lock()

    def add_total(self, size_bytes: int) -> None:
        """Count announced bytes."""
        with self._lock:
            self.announced += size_bytes

    def advance(self, size_bytes: int) -> None:
        """Count moved bytes."""
        with self._lock:
            self.moved += size_bytes

    def state(self, text: str) -> None:
        """Say nothing."""

    done = failed = state


@pytest.fixture
def meter() -> Meter:
    """Progress of the image that the layers are copied for."""
    return Meter()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where layers may be kept on their way."""
    return tmp_path / "cache" / "scratch"


@pytest.fixture
def copy(scratch: Path) -> Callable[..., None]:
    """Copies layers."""
    return partial(copy_layers, scratch=scratch)


@pytest.fixture
def elsewhere() -> Iterator[InMemoryRegistry]:
    """Another registry than `registry`."""
    with InMemoryRegistry() as server:
        yield server


def layers(server: InMemoryRegistry, repository: str, count: int = 6) -> list[Descriptor]:
    """Put layers of different sizes there."""
    sizes = [(1 << 18) * number + 3 for number in range(count)]
    return [server.put_blob(repository, random.Random(size).randbytes(size)) for size in sizes]  # noqa: S311


def test_layers_stream_from_one_registry_to_another(
    registry: InMemoryRegistry,
    elsewhere: InMemoryRegistry,
    open_repository: Callable[..., RegistryRepository],
    meter: Meter,
    copy: Callable[..., None],
) -> None:
    """What is there is not touched, equal layers go once, and each byte that moves is counted once."""
    descriptors = layers(elsewhere, "base/python")
    registry.put_blob("team/app", elsewhere.store.blob("base/python", descriptors[0].digest))
    source = open_repository(elsewhere.repository("base/python"))
    target = open_repository(registry.repository("team/app"))

    copy([*descriptors, descriptors[1]], source, target, progress=meter, cancellation=Cancellation())

    assert set(registry.store.repository("team/app").blobs) == {one.digest for one in descriptors}
    assert meter.announced == meter.moved == sum(one.size for one in descriptors[1:])
    assert elsewhere.count("GET") == registry.count("PUT") == len(descriptors) - 1


def test_layers_are_mounted_within_a_registry(
    registry: InMemoryRegistry,
    open_repository: Callable[..., RegistryRepository],
    meter: Meter,
    copy: Callable[..., None],
) -> None:
    """Nothing moves where the registry can link: two requests for each layer."""
    descriptors = layers(registry, "base/python")
    source, target = (open_repository(registry.repository(name)) for name in ("base/python", "team/app"))

    copy(descriptors, source, target, progress=meter, cancellation=Cancellation())

    assert set(registry.store.repository("team/app").blobs) == {one.digest for one in descriptors}
    assert (meter.announced, registry.count()) == (0, 2 * len(descriptors))


def test_layers_go_into_a_layout_and_back(
    registry: InMemoryRegistry,
    open_repository: Callable[..., RegistryRepository],
    tmp_path: Path,
    meter: Meter,
    copy: Callable[..., None],
) -> None:
    """The two kinds of repository are each other's source and target."""
    descriptors = layers(registry, "base/python", 3)
    source, back = (open_repository(registry.repository(name)) for name in ("base/python", "back"))
    layout = LayoutRepository(tmp_path / "layout")

    copy(descriptors, source, layout, progress=meter, cancellation=Cancellation())
    copy(descriptors, layout, back, progress=meter, cancellation=Cancellation())

    assert registry.store.repository("back").blobs == registry.store.repository("base/python").blobs


@pytest.mark.parametrize("chunks", [False, True])
def test_an_upload_that_needs_the_bytes_again_does_not_download_each_time(
    registry: InMemoryRegistry,
    elsewhere: InMemoryRegistry,
    open_repository: Callable[..., RegistryRepository],
    meter: Meter,
    copy: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    chunks: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """Broken uploads and uploads in chunks cost a second download, never a third, and no file where memory may be."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    if chunks:
        monkeypatch.setattr(upload, "CHUNK_BYTES", 1 << 20)
        monkeypatch.setattr(upload, "MONOLITHIC_LIMIT_BYTES", 0)
    else:
        registry.drop("PUT", "uploads", after_bytes=1 << 20, times=3)
    descriptor = layers(elsewhere, "base/python", 10)[-1]
    source = open_repository(elsewhere.repository("base/python"))

    copy(
        [descriptor],
        source,
        open_repository(registry.repository("team/app")),
        progress=meter,
        cancellation=Cancellation(),
    )

    assert descriptor.digest in registry.store.repository("team/app").blobs
    assert elsewhere.count("GET") == 2
    assert meter.moved == descriptor.size


def test_a_damaged_layer_is_not_kept(
    registry: InMemoryRegistry,
    elsewhere: InMemoryRegistry,
    open_repository: Callable[..., RegistryRepository],
    meter: Meter,
    copy: Callable[..., None],
) -> None:
    """The digest is checked while the layer passes by."""
    descriptor = layers(elsewhere, "base/python", 3)[-1]
    elsewhere.corrupt("blobs")
    source, target = open_repository(elsewhere.repository("base/python")), open_repository(registry.repository("app"))

    with pytest.raises(DigestMismatchError):
        copy([descriptor], source, target, progress=meter, cancellation=Cancellation())
    assert not registry.store.repository("app").blobs


def test_the_first_failure_stops_the_others(
    registry: InMemoryRegistry,
    elsewhere: InMemoryRegistry,
    open_repository: Callable[..., RegistryRepository],
    meter: Meter,
    copy: Callable[..., None],
) -> None:
    """The error is that of the layer that failed; layers that were not begun are not."""
    descriptors = layers(elsewhere, "base/python", 12)
    registry.fail("POST", "uploads", status=403, code="DENIED", times=50)
    source, target = open_repository(elsewhere.repository("base/python")), open_repository(registry.repository("app"))

    with pytest.raises(RegistryError, match="403 DENIED"):
        copy(descriptors, source, target, progress=meter, cancellation=Cancellation())
    assert registry.count("POST") < len(descriptors)


def test_copying_can_be_cancelled(
    registry: InMemoryRegistry,
    elsewhere: InMemoryRegistry,
    open_repository: Callable[..., RegistryRepository],
    meter: Meter,
    copy: Callable[..., None],
) -> None:
    """A raised flag stops the copy within a chunk."""
    descriptors = layers(elsewhere, "base/python")
    cancellation = Cancellation()
    meter.advance = lambda _: cancellation.cancel()  # type: ignore[method-assign]
    source, target = open_repository(elsewhere.repository("base/python")), open_repository(registry.repository("app"))

    with pytest.raises(CancelledError):
        copy(descriptors, source, target, progress=meter, cancellation=cancellation)
    assert len(registry.store.repository("app").blobs) < len(descriptors)
