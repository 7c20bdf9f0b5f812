"""Registries on bad days: what was pushed stays and is used, nothing else is taken for pushed."""

from __future__ import annotations

import pytest

from prebuilt.oci.open import open_repository
from prebuilt.testing.validate import validate

pytestmark = [pytest.mark.metaflow, pytest.mark.slow]

LOCK, IMAGE, UPLOADS = "site/images/manifests/lock-", "site/images/manifests/v1-", "site/images/blobs/uploads"
REMEDIES = {
    401: "401 Unauthorized; check that the repository exists, and log in: docker login 127.0.0.1",
    403: "403 Forbidden; ask for the right to do this, or use another account",
    429: "429 Too Many Requests; wait a while",
    500: "500 Internal Server Error; try again later, or ask those who run the registry",
}


def images(place, registry) -> int:
    """Return how many images the site's repository has, each checked to the last byte."""
    repository = open_repository(place.variables["SITE_REPOSITORY"])
    tags = [tag for tag in registry.store.repository("site/images").tags if tag.startswith("v1-")]
    for tag in tags:
        validate(repository, tag)
    return len(tags)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        (method, path, status)
        for method, path in (("GET", LOCK), ("HEAD", IMAGE), ("POST", UPLOADS), ("PUT", UPLOADS), ("PUT", IMAGE))
        for status in REMEDIES
    ],
)
def test_a_registry_that_refuses_is_named(in_registry, registry, method, path, status):
    """The message has the request, the answer and what to do; once it is well again the deployment comes through."""
    registry.fail(method, path, status=status, times=99, headers={"Retry-After": "0"})
    message = in_registry.run(pypi={"fine": "2.32"}).message
    assert f"at {method} http://{registry.host}/v2/" in message
    assert REMEDIES[status] in message
    assert images(in_registry, registry) == 0
    registry.faults.clear()
    assert in_registry.run(pypi={"fine": "2.32"}).deployed
    assert images(in_registry, registry) == 1


def test_a_registry_that_is_down_is_named(in_registry):
    """It is not read as empty."""
    message = in_registry.run(pypi={"fine": "2.32"}, SITE_REPOSITORY="127.0.0.1:9/site/images").message
    assert "127.0.0.1:9/v2/site/images" in message
    assert "Connection refused; check the name, the network and the proxy settings" in message


def test_a_registry_that_stumbles_is_asked_again(in_registry, registry):
    """Cut connections, a busy answer and a broken body delay a deployment and no more."""
    registry.drop("PUT", UPLOADS)
    registry.fail("POST", UPLOADS, status=503, headers={"Retry-After": "0"})
    registry.fail("HEAD", IMAGE, status=429, headers={"Retry-After": "0"})
    registry.truncate("base/blobs", after_bytes=10)
    assert in_registry.run(pypi={"fine": "2.32"}).deployed
    assert images(in_registry, registry) == 1


@pytest.mark.parametrize("fault", ["truncate", "corrupt"])
def test_a_kept_lock_that_arrives_damaged_is_not_used(in_registry, registry, fault):
    """The message says so, or the document is fetched again; a wrong lock is never taken."""
    assert in_registry.run(pypi={"fine": "2.32"}).deployed
    if fault == "truncate":
        registry.truncate(LOCK, after_bytes=10, times=99)
        assert "without sending complete message body" in in_registry.run(pypi={"fine": "2.32"}).message
    else:
        registry.corrupt(LOCK, times=99)
        assert "expected sha256:" in in_registry.run(pypi={"fine": "2.32"}).message
    registry.faults.clear()
    assert in_registry.run(pypi={"fine": "2.32"}).deployed
