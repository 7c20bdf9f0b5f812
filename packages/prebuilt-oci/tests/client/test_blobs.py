from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import (
    CancelledError,
    DigestMismatchError,
    RegistryError,
    RegistryUnreachableError,
    StorageError,
)
from prebuilt.oci import upload
from prebuilt.oci.client import RegistryRepository
from prebuilt.testing.registry import InMemoryRegistry

BLOB = random.Random(1).randbytes(3 * (1 << 20) + 17)  # noqa: S311 - any bytes that do not repeat


def descriptor_of(data: bytes) -> Descriptor:
    """Return the descriptor of `data`."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor(media_type="application/octet-stream", digest=digest, size=len(data))


def read(repository: RegistryRepository, descriptor: Descriptor) -> list[bytes]:
    """Return all chunks of a blob."""
    with repository.open_blob(descriptor) as chunks:
        return list(chunks)


class TestDownload:
    @pytest.mark.parametrize("data", [BLOB, b"", b"x", b"y" * (1 << 20)], ids=["3 MiB", "empty", "1 byte", "1 MiB"])
    def test_a_blob_comes_in_chunks(
        self, registry: InMemoryRegistry, repository: RegistryRepository, data: bytes
    ) -> None:
        """All bytes come, in chunks of at most 1 MiB."""
        chunks = read(repository, registry.put_blob("team/app", data))

        assert b"".join(chunks) == data
        assert all(0 < len(chunk) <= 1 << 20 for chunk in chunks)

    def test_a_broken_download_is_taken_up_where_it_broke(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """After a cut only the missing bytes are asked for."""
        descriptor = registry.put_blob("team/app", BLOB)
        registry.truncate("blobs", after_bytes=(1 << 20) + 5)
        registry.truncate("blobs", after_bytes=(1 << 20) + 5)

        assert b"".join(read(repository, descriptor)) == BLOB
        ranges = [request.headers.get("Range") for request in registry.requests]
        assert ranges == [None, f"bytes={(1 << 20) + 5}-", f"bytes={(2 << 20) + 10}-"]

    def test_a_line_that_breaks_often_gets_there(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """Each byte that came counts, however few come before the next cut."""
        descriptor = registry.put_blob("team/app", BLOB)
        registry.truncate("blobs", after_bytes=len(BLOB) // 20, times=19)

        assert b"".join(read(repository, descriptor)) == BLOB

    def test_a_registry_without_ranges_sends_all_again(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """Where Range is not honoured the bytes that are known are skipped."""
        registry.serves_ranges = False
        descriptor = registry.put_blob("team/app", BLOB)
        registry.truncate("blobs", after_bytes=2 << 20)

        assert b"".join(read(repository, descriptor)) == BLOB

    def test_a_download_that_never_ends_well_says_how_far_it_came(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """Tries without a byte more come to an end; the last chunk was not given out."""
        registry.serves_ranges = False
        descriptor = registry.put_blob("team/app", BLOB)
        registry.truncate("blobs", after_bytes=2 << 20, times=20)

        with pytest.raises(RegistryUnreachableError, match=f"after {2 << 20} of {len(BLOB)} bytes"):
            read(repository, descriptor)
        assert registry.count("GET") == 5

    def test_wrong_bytes_are_noticed_before_the_last_chunk(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """Whoever writes chunks to a file has no whole file when the digest is wrong."""
        descriptor = registry.put_blob("team/app", BLOB)
        registry.corrupt("blobs")
        given = 0

        with pytest.raises(DigestMismatchError) as caught, repository.open_blob(descriptor) as chunks:
            for chunk in chunks:
                given += len(chunk)
        assert given < len(BLOB)
        assert caught.value.expected == descriptor.digest

    def test_more_bytes_than_promised_are_refused(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """A blob that is longer than its descriptor says is an error."""
        held = registry.put_blob("team/app", BLOB)
        short = Descriptor(media_type=held.media_type, digest=held.digest, size=10)

        with pytest.raises(DigestMismatchError, match="10 bytes"):
            read(repository, short)

    def test_a_missing_blob_is_an_error_with_the_registrys_code(self, repository: RegistryRepository) -> None:
        """Opening what is not there says BLOB_UNKNOWN."""
        with pytest.raises(RegistryError, match="404 BLOB_UNKNOWN"):
            read(repository, descriptor_of(b"nowhere"))

    def test_a_reader_may_stop_early(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """Leaving in the middle frees the connection; the next request works."""
        descriptor = registry.put_blob("team/app", BLOB)

        with repository.open_blob(descriptor) as chunks:
            next(chunks)
        assert repository.has_blob(descriptor.digest)


class TestRedirects:
    def test_a_blob_store_gets_no_credentials(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """A redirect to another host is followed without Authorization."""
        with InMemoryRegistry() as store:
            descriptor = store.put_blob("bucket", BLOB)
            url = f"{store.base_url}/v2/bucket/blobs/{descriptor.digest}"
            guarded_registry.put_blob("team/app", BLOB)
            repository = open_repository(guarded_registry.repository("team/app"))
            assert repository.has_blob(descriptor.digest)  # logs in
            guarded_registry.fail("GET", "blobs", status=307, headers={"Location": f"{url}?X-Amz-Signature=abc"})

            assert b"".join(read(repository, descriptor)) == BLOB

            assert "Authorization" in guarded_registry.requests[-1].headers
            assert [("Authorization" in r.headers, r.path.endswith("abc")) for r in store.requests] == [(False, True)]

    def test_signatures_are_not_shown(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """An error at a blob store names its address without the signed query."""
        descriptor = registry.put_blob("team/app", BLOB)
        with InMemoryRegistry() as store:
            location = f"{store.base_url}/v2/gone/blobs/{descriptor.digest}?X-Amz-Signature=abc"
            registry.fail("GET", "blobs", status=307, headers={"Location": location})

            with pytest.raises(RegistryError, match=f"http://{store.host}/v2/gone") as caught:
                read(repository, descriptor)
        assert "abc" not in str(caught.value)

    def test_a_redirect_off_tls_is_refused(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """Plain HTTP to a host that is not on loopback is never spoken, whoever asks for it."""
        location = "http://blobs.example.org/x"
        registry.fail("GET", "blobs", status=302, headers={"Location": location})

        with pytest.raises(RegistryError, match="not an https address"):
            read(repository, descriptor_of(BLOB))

    def test_a_redirect_loop_ends(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """Redirects in a circle are an error."""
        registry.fail("GET", "blobs", status=302, headers={"Location": "/v2/team/app/blobs/again"}, times=50)

        with pytest.raises(RegistryError, match="redirects"):
            read(repository, descriptor_of(BLOB))


class Source:
    """Opens `data`, and counts how often."""

    def __init__(self, data: bytes) -> None:
        self.data, self.opened = data, 0

    def __call__(self) -> io.BytesIO:
        """Open from the start."""
        self.opened += 1
        return io.BytesIO(self.data)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 1 MiB for all blobs, so that tests need not send gigabytes."""
    monkeypatch.setattr(upload, "CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(upload, "MONOLITHIC_LIMIT_BYTES", 1 << 20)


def held(registry: InMemoryRegistry, descriptor: Descriptor) -> bytes:
    """Return what the registry has, without a request."""
    return registry.store.blob("team/app", descriptor.digest)


class TestUpload:
    @pytest.mark.parametrize("absolute", [True, False])
    @pytest.mark.parametrize("data", [BLOB, b""], ids=["3 MiB", "empty"])
    def test_a_blob_goes_in_one_put(
        self,
        registry: InMemoryRegistry,
        repository: RegistryRepository,
        data: bytes,
        absolute: bool,  # noqa: FBT001 - pytest passes it by name
    ) -> None:
        """HEAD, POST, PUT: three requests, whether the Location is a path or a URL; the bytes are reported once."""
        registry.absolute_locations = absolute
        descriptor, told = descriptor_of(data), []

        repository.push_blob(descriptor, Source(data), told.append)

        assert held(registry, descriptor) == data
        assert [request.method for request in registry.requests] == ["HEAD", "POST", "PUT"]
        assert "_state=opaque%3D&digest=sha256%3A" in registry.requests[-1].path
        assert sum(told) == len(data)

    def test_a_blob_that_is_there_is_not_read(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """One HEAD, and all bytes count as moved."""
        descriptor, source, told = registry.put_blob("team/app", BLOB), Source(BLOB), []

        repository.push_blob(descriptor, source, told.append)

        assert (registry.count(), source.opened, told) == (1, 0, [len(BLOB)])

    def test_a_broken_upload_begins_anew(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """The source is opened again, and no byte is reported twice."""
        descriptor, source, told = descriptor_of(BLOB), Source(BLOB), []
        registry.drop("PUT", "uploads", after_bytes=2 << 20)
        registry.fail("PUT", "uploads", status=502)

        repository.push_blob(descriptor, source, told.append)

        assert held(registry, descriptor) == BLOB
        assert source.opened == 3
        assert sum(told) == len(BLOB)
        assert all(size > 0 for size in told)

    @pytest.mark.parametrize("status", [405, 413, 501])
    def test_a_registry_that_wants_chunks_gets_chunks(
        self, registry: InMemoryRegistry, repository: RegistryRepository, status: int, waits_s: list[float]
    ) -> None:
        """A refused PUT is followed by PATCH, without a wait."""
        registry.refuses_monolithic = status
        descriptor = descriptor_of(BLOB)

        repository.push_blob(descriptor, Source(BLOB))

        assert held(registry, descriptor) == BLOB
        assert [request.method for request in registry.requests] == ["HEAD", "POST", "PUT", "POST", "PATCH", "PUT"]
        assert sum(waits_s) == 0

    @pytest.mark.usefixtures("small_chunks")
    def test_large_blobs_go_in_chunks(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """Each chunk says which bytes it has."""
        descriptor = descriptor_of(BLOB)

        repository.push_blob(descriptor, Source(BLOB))

        assert held(registry, descriptor) == BLOB
        ranges = [r.headers["Content-Range"] for r in registry.requests if r.method == "PATCH"]
        assert ranges == ["0-1048575", "1048576-2097151", "2097152-3145727", "3145728-3145744"]

    @pytest.mark.usefixtures("small_chunks")
    def test_chunks_are_as_large_as_the_registry_wants(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """OCI-Chunk-Min-Length is respected."""
        registry.chunk_min_length = 2 << 20

        repository.push_blob(descriptor_of(BLOB), Source(BLOB))

        sizes = [int(r.headers["Content-Length"]) for r in registry.requests if r.method == "PATCH"]
        assert sizes == [2 << 20, (1 << 20) + 17]

    @pytest.mark.usefixtures("small_chunks")
    def test_a_broken_chunk_is_taken_up_where_it_broke(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """The registry is asked what has arrived, and only the rest is sent."""
        descriptor, told = descriptor_of(BLOB), []
        registry.drop("PATCH", "uploads", after_bytes=1 << 19)
        registry.fail("PATCH", "uploads", status=416, code="RANGE_INVALID")

        repository.push_blob(descriptor, Source(BLOB), told.append)

        assert held(registry, descriptor) == BLOB
        assert registry.count("POST") == 1
        ranges = [r.headers["Content-Range"] for r in registry.requests if r.method == "PATCH"]
        assert "524288-1048575" in ranges
        assert sum(told) == len(BLOB)

    @pytest.mark.usefixtures("small_chunks")
    def test_an_upload_that_the_registry_forgot_begins_anew(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """BLOB_UPLOAD_UNKNOWN in the middle starts over."""
        descriptor = descriptor_of(BLOB)
        registry.fail("PATCH", "uploads", status=404, code="BLOB_UPLOAD_UNKNOWN")

        repository.push_blob(descriptor, Source(BLOB))

        assert held(registry, descriptor) == BLOB
        assert registry.count("POST") == 2

    @pytest.mark.usefixtures("small_chunks")
    def test_a_registry_that_takes_no_chunks_gets_the_whole(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """A refused PATCH is followed by one PUT, whatever the size."""
        registry.fail("PATCH", "uploads", status=400, code="UNSUPPORTED", times=9)
        descriptor = descriptor_of(BLOB)

        repository.push_blob(descriptor, Source(BLOB))

        assert held(registry, descriptor) == BLOB
        assert [request.method for request in registry.requests] == ["HEAD", "POST", "PATCH", "POST", "PUT"]

    def test_a_registry_that_takes_neither_is_an_error(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """Both ways are tried once."""
        registry.refuses_monolithic = 413
        registry.fail("PATCH", "uploads", status=413, times=9)

        with pytest.raises(RegistryError, match=r"413.*size limit"):
            repository.push_blob(descriptor_of(BLOB), Source(BLOB))
        assert registry.count("POST") == 2

    def test_a_wrong_digest_is_refused_by_the_registry(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """Bytes that are not what the descriptor says are not tried again."""
        wrong = BLOB[:-1] + bytes([BLOB[-1] ^ 1])

        with pytest.raises(RegistryError, match="DIGEST_INVALID"):
            repository.push_blob(descriptor_of(BLOB), Source(wrong))
        assert registry.count("PUT") == 1

    @pytest.mark.parametrize(("data", "words"), [(BLOB[:-1], "only"), (BLOB + b"x", "more")])
    def test_a_source_of_the_wrong_size_is_noticed(
        self, registry: InMemoryRegistry, repository: RegistryRepository, data: bytes, words: str
    ) -> None:
        """Too few or too many bytes are an error of this machine, and nothing is stored."""
        with pytest.raises(StorageError, match=words):
            repository.push_blob(descriptor_of(BLOB), Source(data))
        assert not registry.store.repository("team/app").blobs

    def test_a_cancelled_upload_stops_at_once(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """What `advance` raises goes through, and is not tried again."""

        def stop(_: int) -> None:
            raise CancelledError("go on", reason="enough")

        with pytest.raises(CancelledError):
            repository.push_blob(descriptor_of(BLOB), Source(BLOB), stop)
        assert registry.count("POST") == 1
        assert not registry.store.repository("team/app").blobs


class TestMount:
    def test_a_blob_is_linked(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """One request, no bytes."""
        descriptor = registry.put_blob("base/python", BLOB)

        assert repository.mount_blob(descriptor, registry.repository("base/python"))

        assert held(registry, descriptor) == BLOB
        assert registry.count() == 1

    def test_a_registry_that_does_not_mount_leaves_nothing_open(
        self, registry: InMemoryRegistry, repository: RegistryRepository
    ) -> None:
        """The upload that is opened in place of the mount is cancelled."""
        registry.mounts = False
        descriptor = registry.put_blob("base/python", BLOB)

        assert not repository.mount_blob(descriptor, registry.repository("base/python"))
        assert registry.store.unfinished_uploads == 0

    @pytest.mark.parametrize("status", [405, 429, 503])
    def test_an_upload_that_cannot_be_cancelled_is_left(
        self, registry: InMemoryRegistry, repository: RegistryRepository, status: int
    ) -> None:
        """It expires by itself; once is asked, whatever the answer."""
        registry.mounts = False
        descriptor = registry.put_blob("base/python", BLOB)
        registry.fail("DELETE", "uploads", status=status, times=100)

        assert not repository.mount_blob(descriptor, registry.repository("base/python"))
        assert registry.count("DELETE") == 1

    @pytest.mark.parametrize("status", [401, 403, 405])
    def test_a_refused_mount_means_copy(
        self, registry: InMemoryRegistry, repository: RegistryRepository, status: int
    ) -> None:
        """A source that may not be read here is no reason to fail: pushing will tell."""
        registry.fail("POST", "mount=", status=status)

        assert not repository.mount_blob(descriptor_of(BLOB), registry.repository("secret/python"))

    def test_a_token_service_that_refuses_the_source_means_copy(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """Some refuse a token as soon as one of its scopes is not allowed."""
        repository = open_repository(guarded_registry.repository("team/app"))
        guarded_registry.fail("GET", "/token.*secret", status=403, code="DENIED")

        assert not repository.mount_blob(descriptor_of(BLOB), guarded_registry.repository("secret/python"))

    def test_another_registry_is_not_asked(self, registry: InMemoryRegistry, repository: RegistryRepository) -> None:
        """Mounting works within one registry only."""
        assert not repository.mount_blob(descriptor_of(BLOB), "docker.io/library/python")
        assert not repository.mount_blob(descriptor_of(BLOB), "oci:/somewhere")
        assert registry.count() == 0
