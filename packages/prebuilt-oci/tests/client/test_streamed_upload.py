"""Blobs that are pushed while they are written."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import CancelledError, ForbiddenError, RegistryError
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.growing_blob import GrowingBlob
from prebuilt.oci.layout import LayoutRepository
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.waiting import eventually

HALVES = [random.Random(seed).randbytes((2 << 20) + 17) for seed in (1, 2)]  # noqa: S311 - any bytes that do not repeat
BLOB = b"".join(HALVES)
DESCRIPTOR = Descriptor(
    media_type="application/octet-stream", digest=f"sha256:{hashlib.sha256(BLOB).hexdigest()}", size=len(BLOB)
)

Push = Callable[..., "Future[None]"]


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[GrowingBlob]:
    """A blob of which nothing is written yet."""
    with GrowingBlob(tmp_path / "scratch") as blob:
        yield blob


@pytest.fixture
def push(blob: GrowingBlob, repository: RegistryRepository) -> Iterator[Push]:
    """Pushes it in a thread."""
    with ThreadPoolExecutor() as threads:
        yield lambda *check: threads.submit(repository.push_growing_blob, blob, *check)
        blob.give_up()


def arrived(registry: InMemoryRegistry) -> int:
    """Return how many bytes of blobs have come."""
    return sum(request.body_bytes for request in registry.requests)


def write_all(blob: GrowingBlob) -> None:
    """Write both halves and say so."""
    for half in HALVES:
        blob.write(half)
    blob.finish(DESCRIPTOR)


def held(registry: InMemoryRegistry) -> bytes:
    """Return what the registry has."""
    return registry.store.blob("team/app", DESCRIPTOR.digest)


def test_it_is_on_its_way_before_it_is_whole(registry: InMemoryRegistry, blob: GrowingBlob, push: Push) -> None:
    """One PATCH without a length, then its digest; nothing is asked before there is something to send."""
    pushing = push()
    assert registry.requests == []
    blob.write(HALVES[0])
    eventually(lambda: arrived(registry) == len(HALVES[0]))
    assert not pushing.done()
    blob.write(HALVES[1])
    blob.finish(DESCRIPTOR)
    pushing.result()
    assert held(registry) == BLOB
    assert [request.method for request in registry.requests] == ["POST", "PATCH", "PUT"]
    assert "Content-Length" not in registry.requests[1].headers


@pytest.mark.parametrize(
    "fault",
    [
        lambda registry: registry.fail("PATCH", "uploads", status=411, code="SIZE_INVALID"),
        lambda registry: registry.fail("PATCH", "uploads", status=500),
        lambda registry: registry.drop("PATCH", "uploads"),
        lambda registry: registry.fail("PUT", "uploads", status=404, code="BLOB_UPLOAD_UNKNOWN"),
    ],
    ids=["wants a length", "fails", "cuts the connection", "forgets the upload"],
)
def test_what_breaks_off_is_pushed_once_it_is_whole(
    registry: InMemoryRegistry, blob: GrowingBlob, push: Push, fault: Callable[[InMemoryRegistry], None]
) -> None:
    """Nothing is lost but time."""
    fault(registry)
    pushing = push()
    write_all(blob)
    pushing.result()
    assert held(registry) == BLOB
    assert [request.method for request in registry.requests][-3:] == ["HEAD", "POST", "PUT"]


def test_what_arrived_twice_is_sent_once(registry: InMemoryRegistry, blob: GrowingBlob, push: Push) -> None:
    """A registry that stored it and lost its answer is asked before anything is sent again."""
    registry.put_blob("team/app", BLOB)
    registry.fail("PUT", "uploads", status=502)
    pushing = push()
    write_all(blob)
    pushing.result()
    assert [request.method for request in registry.requests] == ["POST", "PATCH", "PUT", "HEAD"]


def test_a_registry_that_lost_bytes_is_not_believed(
    registry: InMemoryRegistry, blob: GrowingBlob, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it says that it has less than was sent, the upload is not ended as if it had all."""
    extend = registry.store.upload
    streamed: list[str] = []

    def forgetful(upload: str) -> bytearray:
        streamed.append(upload)
        found = extend(upload)
        if upload == streamed[0]:
            del found[1000:]
        return found

    monkeypatch.setattr(registry.store, "upload", forgetful)
    pushing = push()
    write_all(blob)
    pushing.result()
    assert len(set(streamed)) == 2
    assert held(registry) == BLOB


def test_a_refusal_comes_before_the_rest_is_written(registry: InMemoryRegistry, blob: GrowingBlob, push: Push) -> None:
    """Who may not push learns it from the first bytes."""
    registry.fail("POST", "uploads", status=403, code="DENIED", times=9)
    pushing = push()
    blob.write(HALVES[0])
    with pytest.raises(ForbiddenError, match="403"):
        pushing.result()


def test_the_error_is_that_of_the_whole_push(registry: InMemoryRegistry, blob: GrowingBlob, push: Push) -> None:
    """A registry that takes it in no way is an error that names the blob."""
    registry.fail("PATCH", "uploads", status=413, times=9)
    registry.fail("PUT", "uploads", status=413, times=9)
    pushing = push()
    write_all(blob)
    with pytest.raises(RegistryError, match=f"push blob {DESCRIPTOR.digest}"):
        pushing.result()


def test_a_push_ends_with_what_it_waits_for(registry: InMemoryRegistry, blob: GrowingBlob, push: Push) -> None:
    """A blob that is given up is not pushed, and nothing of it is stored."""
    pushing = push()
    blob.write(HALVES[0])
    eventually(lambda: arrived(registry) == len(HALVES[0]))
    blob.give_up()
    with pytest.raises(CancelledError):
        pushing.result()
    assert not registry.store.repository("team/app").blobs


def test_check_stops_it(registry: InMemoryRegistry, blob: GrowingBlob, push: Push) -> None:
    """What it raises goes through, and nothing is tried again."""

    def stop() -> None:
        raise CancelledError("go on", reason="enough")

    pushing = push(stop)
    write_all(blob)
    with pytest.raises(CancelledError, match="enough"):
        pushing.result()
    assert registry.count("HEAD") == 0


def test_a_layout_waits(blob: GrowingBlob, tmp_path: Path) -> None:
    """What stays on this machine is stored once it is whole."""
    layout = LayoutRepository(tmp_path / "layout")
    with ThreadPoolExecutor() as threads:
        pushing = threads.submit(layout.push_growing_blob, blob)
        write_all(blob)
        pushing.result()
    with layout.open_blob(DESCRIPTOR) as chunks:
        assert b"".join(chunks) == BLOB
