from __future__ import annotations

import hashlib
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import (
    CancelledError,
    DigestMismatchError,
    ForbiddenError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
)
from prebuilt.core.settings import Settings
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.media_types import OCI_INDEX, OCI_MANIFEST
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.registry import InMemoryRegistry


def digest_of(data: bytes) -> str:
    """Return the digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_resolving_a_tag_is_one_request(
    registry: InMemoryRegistry, repository: RegistryRepository, pushed_manifest: bytes
) -> None:
    """A tag's descriptor costs one HEAD, and names what a GET would bring."""
    descriptor = repository.resolve("1")

    assert descriptor is not None
    assert (descriptor.media_type, descriptor.digest, descriptor.size) == (
        OCI_MANIFEST,
        digest_of(pushed_manifest),
        len(pushed_manifest),
    )
    assert [str(request) for request in registry.requests] == ["HEAD /v2/team/app/manifests/1"]
    assert OCI_INDEX in registry.requests[0].headers["Accept"]


def test_absence_is_none(repository: RegistryRepository) -> None:
    """What is not there is None, not an error."""
    assert repository.resolve("2") is None
    assert repository.get_manifest("2") is None
    assert not repository.has_blob(digest_of(b"x"))


def test_a_manifest_goes_there_and_back(registry: InMemoryRegistry, repository: RegistryRepository) -> None:
    """What was put under a tag is got by the tag and by the digest."""
    index = b'{"schemaVersion":2,"manifests":[]}'

    put = repository.put_manifest("all", OCI_INDEX, index)

    for reference in ("all", put.digest):
        got = repository.get_manifest(reference)
        assert got is not None
        assert (got.data, got.descriptor) == (index, put)
    assert repository.put_manifest(put.digest, OCI_INDEX, index) == put
    assert registry.count("PUT") == 2


def test_a_manifest_is_not_put_under_a_digest_that_is_not_its_own(
    registry: InMemoryRegistry, repository: RegistryRepository
) -> None:
    """A wrong digest is refused before anything is sent."""
    with pytest.raises(DigestMismatchError):
        repository.put_manifest(digest_of(b"other"), OCI_INDEX, b"{}")
    assert registry.requests == []


def test_a_damaged_manifest_is_refused(
    registry: InMemoryRegistry, repository: RegistryRepository, pushed_manifest: bytes
) -> None:
    """Bytes that are not what the registry's own header says are an error that names both digests."""
    registry.corrupt("manifests/1")

    with pytest.raises(DigestMismatchError) as caught:
        repository.get_manifest("1")
    assert caught.value.expected == digest_of(pushed_manifest)


def test_a_truncated_manifest_is_asked_for_again(
    registry: InMemoryRegistry, repository: RegistryRepository, pushed_manifest: bytes
) -> None:
    """An answer that breaks off is no answer: the second one is taken."""
    registry.truncate("manifests/1", after_bytes=10)

    manifest = repository.get_manifest("1")

    assert manifest is not None
    assert manifest.data == pushed_manifest
    assert registry.count("GET", "manifests/1") == 2


def test_a_web_page_is_not_a_manifest(registry: InMemoryRegistry, repository: RegistryRepository) -> None:
    """A login page that answers 200 is an error that says what came."""
    registry.fail("GET", "manifests", status=200, code="HTML", headers={"Content-Type": "text/html"})

    with pytest.raises(RegistryError, match=r"text/html.*not an image's manifest"):
        repository.get_manifest("1")


def test_a_head_without_digest_is_followed_by_a_get(
    registry: InMemoryRegistry, repository: RegistryRepository, pushed_manifest: bytes
) -> None:
    """Where the HEAD does not say enough the manifest itself is read."""
    registry.fail("HEAD", "manifests", status=200)

    descriptor = repository.resolve("1")

    assert descriptor is not None
    assert descriptor.digest == digest_of(pushed_manifest)


@pytest.mark.usefixtures("pushed_manifest")
def test_passing_failures_are_tried_again(
    registry: InMemoryRegistry, repository: RegistryRepository, waits_s: list[float]
) -> None:
    """5xx and cut connections are tried again, each after a longer wait; Retry-After decides where there is one."""
    registry.fail("HEAD", "manifests", status=503)
    registry.drop("HEAD", "manifests")
    registry.fail("HEAD", "manifests", status=429, headers={"Retry-After": "7"})

    assert repository.resolve("1") is not None
    assert waits_s in ([0.5, 1.0, 7.0], [0.5, 7.0, 2.0])  # a drop and a status are different kinds of fault


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_limit_for_hours_is_not_waited_for(
    registry: InMemoryRegistry, repository: RegistryRepository, waits_s: list[float], form: str
) -> None:
    """A registry that asks for more than two minutes fails the deploy at once, with what to do."""
    until = format_datetime(datetime.now(timezone.utc) + timedelta(hours=6), usegmt=True)
    registry.fail("HEAD", "manifests", status=429, headers={"Retry-After": "21600" if form == "seconds" else until})

    with pytest.raises(RateLimitedError, match="log in"):
        repository.resolve("1")
    assert waits_s == []


def test_a_date_that_is_near_is_waited_for(
    registry: InMemoryRegistry, repository: RegistryRepository, waits_s: list[float]
) -> None:
    """Retry-After may be a date, too."""
    until = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
    registry.fail("HEAD", "manifests", status=503, headers={"Retry-After": until})

    assert repository.resolve("1") is None
    (wait_s,) = waits_s
    assert 50 < wait_s <= 60


@pytest.mark.parametrize("path", ["manifests", "/token"])
def test_a_wait_ends_when_work_should_stop(guarded_registry: InMemoryRegistry, home: Path, path: str) -> None:
    """Whoever waits for a registry, or for its token service, notices Ctrl-C in a moment."""
    guarded_registry.fail("*", path, status=429, times=9, headers={"Retry-After": "60"})
    cancellation = Cancellation()
    repository = open_repository(
        guarded_registry.repository("team/app"), settings=Settings({"HOME": str(home)}, {}), check=cancellation.check
    )
    threading.Timer(0.2, cancellation.cancel).start()
    with pytest.raises(CancelledError):
        repository.resolve("1")


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "DENIED", ForbiddenError, "403 DENIED: a fault that the test switched on"),
        (429, "TOOMANYREQUESTS", RateLimitedError, "429 TOOMANYREQUESTS"),
        (500, "UNKNOWN", RegistryError, "500 UNKNOWN"),
        (418, "", RegistryError, "418 I'm a Teapot"),
    ],
)
def test_a_refusal_says_what_the_registry_said(
    registry: InMemoryRegistry, repository: RegistryRepository, status: int, code: str, kind: type, words: str
) -> None:
    """The error has status, the registry's code and message, and METHOD URL; absence it is not."""
    registry.fail("GET", "manifests", status=status, code=code, times=5)

    with pytest.raises(kind) as caught:
        repository.get_manifest("1")

    assert words in str(caught.value)
    assert f"GET http://{registry.host}/v2/team/app/manifests/1" in str(caught.value)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_registry_that_is_down_is_named(registry: InMemoryRegistry, repository: RegistryRepository) -> None:
    """No answer after all tries is an error with the address, not an absence."""
    registry.stop()

    with pytest.raises(RegistryUnreachableError, match=f"http://{registry.host}/v2/team/app/manifests/1"):
        repository.resolve("1")


def test_a_manifest_whose_blobs_are_missing_is_refused(repository: RegistryRepository) -> None:
    """The registry's own reason reaches the user."""
    manifest = b'{"config":{"digest":"sha256:00"},"layers":[]}'

    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        repository.put_manifest("1", OCI_MANIFEST, manifest)


@pytest.mark.parametrize("code", ["DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"])
def test_a_manifest_that_somebody_else_pushes_as_well_is_put_again(
    repository: RegistryRepository, registry: InMemoryRegistry, pushed_manifest: bytes, code: str
) -> None:
    """A registry that writes files in several steps takes it for another one, or for lacking a blob, while it does."""
    registry.fail("PUT", "manifests/again", status=400, code=code, times=2)
    descriptor = repository.put_manifest("again", OCI_MANIFEST, pushed_manifest)
    assert repository.resolve("again") == descriptor


def test_it_is_a_repository(repository: RegistryRepository, registry: InMemoryRegistry) -> None:
    """It has the name that opens it, in full."""
    as_protocol: Repository = repository
    assert as_protocol.name == f"{registry.host}/team/app"
    assert RegistryRepository("python").name == "docker.io/library/python"


def test_an_immutable_tag_with_the_same_manifest_is_put(
    repository: RegistryRepository, registry: InMemoryRegistry
) -> None:
    """Where tags cannot be moved, the second of two that push one and the same image has what it wanted."""
    registry.is_immutable = lambda _, __: True
    index = b'{"schemaVersion":2,"manifests":[]}'
    first = repository.put_manifest("v1", OCI_INDEX, index)
    assert repository.put_manifest("v1", OCI_INDEX, index) == first


def test_an_immutable_tag_is_not_moved(repository: RegistryRepository, registry: InMemoryRegistry) -> None:
    """Another manifest under the same tag is refused, and the message says what to do."""
    registry.is_immutable = lambda _, __: True
    repository.put_manifest("v1", OCI_INDEX, b'{"schemaVersion":2,"manifests":[]}')
    with pytest.raises(RegistryError, match=r"TAG_INVALID: .*deploy again") as caught:
        repository.put_manifest("v1", OCI_INDEX, b'{"schemaVersion":2,"manifests":[],"other":1}')
    assert caught.value.tried == "push manifest v1"


def test_an_unknown_repository_is_named(repository: RegistryRepository, registry: InMemoryRegistry) -> None:
    """Nothing is in a repository that was not made; to push there is an error that says so."""
    registry.has_repository = lambda _: False
    assert repository.resolve("1") is None
    with pytest.raises(RegistryError, match=r"NAME_UNKNOWN: .*create the repository"):
        repository.put_manifest("v1", OCI_INDEX, b'{"schemaVersion":2,"manifests":[]}')
