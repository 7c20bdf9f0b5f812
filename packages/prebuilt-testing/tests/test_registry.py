from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from prebuilt.oci.media_types import OCI_INDEX, OCI_MANIFEST
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """A registry that lets everybody do everything."""
    with InMemoryRegistry() as server:
        yield server


def ask(
    server: InMemoryRegistry, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Send a request with the standard library; return status, body and headers, whatever the status."""
    url = path if path.startswith("http") else f"{server.base_url}{path}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=body, method=method, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def code_of(body: bytes) -> str:
    """Return the code of the first error."""
    return str(json.loads(body)["errors"][0]["code"])


def test_chunks_leave_the_connection_whole(registry: InMemoryRegistry) -> None:
    """Docker sends bodies whose length it does not know; what follows on the connection is a request of its own."""
    location = ask(registry, "POST", "/v2/a/blobs/uploads/", b"")[2]["Location"]
    connection = http.client.HTTPConnection(registry.host, timeout=10)
    try:
        for status in (202, 202):
            connection.request("PATCH", location, iter([b"one", b"", b"three"]), encode_chunked=True)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, b"")
    finally:
        connection.close()
    assert [request.body_bytes for request in registry.requests if request.method == "PATCH"] == [8, 8]


def test_it_speaks_the_distribution_api(registry: InMemoryRegistry) -> None:
    """Upload in one piece, manifest, tag list, pull."""
    assert ask(registry, "GET", "/v2/")[0] == 200
    blob = registry.put_blob("other", b"{}")  # only to know the digest
    location = ask(registry, "POST", "/v2/a/b/blobs/uploads/", b"")[2]["Location"]

    assert ask(registry, "PUT", f"{location}&digest={blob.digest}", b"{}")[0] == 201
    manifest = json.dumps({"config": blob.to_json(), "layers": []}).encode()
    status, _, headers = ask(registry, "PUT", "/v2/a/b/manifests/1", manifest, Content_Type=OCI_MANIFEST)

    assert status == 201
    for reference in ("1", headers["Docker-Content-Digest"]):
        status, body, got = ask(registry, "GET", f"/v2/a/b/manifests/{reference}")
        assert (status, body, got["Content-Type"]) == (200, manifest, OCI_MANIFEST)
    assert json.loads(ask(registry, "GET", "/v2/a/b/tags/list")[1]) == {"name": "a/b", "tags": ["1"]}
    assert ask(registry, "GET", f"/v2/a/b/blobs/{blob.digest}")[1] == b"{}"


def test_chunks_must_follow_each_other(registry: InMemoryRegistry) -> None:
    """A chunk that leaves a gap is 416; the upload says how far it is."""
    location = ask(registry, "POST", "/v2/a/blobs/uploads/", b"")[2]["Location"]
    assert ask(registry, "PATCH", location, b"abc", Content_Range="0-2")[2]["Range"] == "0-2"

    assert ask(registry, "PATCH", location, b"xyz", Content_Range="9-11")[0] == 416
    assert ask(registry, "GET", location)[2]["Range"] == "0-2"
    assert ask(registry, "DELETE", location)[0] == 204
    assert registry.store.unfinished_uploads == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v2/a/manifests/1", None, 404, "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/a/blobs/sha256:{'0' * 64}", None, 404, "BLOB_UNKNOWN"),
        ("PUT", "/v2/a/manifests/1", b'{"manifests":[{"digest":"sha256:1"}]}', 400, "MANIFEST_BLOB_UNKNOWN"),
        ("PUT", "/v2/a/manifests/1", b"no json", 400, "MANIFEST_INVALID"),
        ("PUT", f"/v2/a/manifests/sha256:{'0' * 64}", b'{"manifests":[]}', 400, "DIGEST_INVALID"),
        ("PATCH", "/v2/a/blobs/uploads/gone", b"x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v1/", None, 404, "NAME_UNKNOWN"),
    ],
)
def test_refusals_have_the_codes_of_the_specification(
    registry: InMemoryRegistry, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    """What a client may meet is answered as real registries answer it."""
    got, text, _ = ask(registry, method, path, body, Content_Type=OCI_INDEX)

    assert (got, code_of(text)) == (status, code)


def test_faults_come_in_turn_and_end(registry: InMemoryRegistry) -> None:
    """Each meets as many matching requests as it was told to, and no others."""
    registry.fail("GET", "^/v2/$", status=503, times=2, headers={"Retry-After": "1"})
    registry.fail("*", "^/v2/$", status=418)

    assert ask(registry, "GET", "/v2/a/tags/list")[0] == 200
    assert [ask(registry, "GET", "/v2/")[0] for _ in range(4)] == [503, 503, 418, 200]
    assert [request.status for request in registry.requests] == [200, 503, 503, 418, 200]
    registry.forget_requests()
    assert registry.count() == 0


def test_answers_can_be_cut_and_damaged(registry: InMemoryRegistry) -> None:
    """The length is announced in full; less comes, or something else."""
    path = f"/v2/a/blobs/{registry.put_blob('a', b'0123456789').digest}"
    registry.truncate("blobs", after_bytes=4)
    registry.corrupt("blobs")
    registry.drop("GET", "blobs")

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(registry, "GET", path)  # dropped: that comes before the body is sent
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(registry, "GET", path)
    assert caught.value.partial == b"0123"
    assert ask(registry, "GET", path)[1] == b"012345678\xc6"
    assert ask(registry, "GET", path)[1] == b"0123456789"


def test_tokens_allow_what_was_asked_for() -> None:
    """The challenge names the token service; a token is good for its scopes until it expires."""
    auth = RegistryAuth(scheme="token", users={"ada": "secret"}, anonymous_pull=True)
    basic = f"Basic {base64.b64encode(b'ada:secret').decode()}"
    with InMemoryRegistry(auth=auth) as server:
        status, text, headers = ask(server, "GET", "/v2/a/tags/list")
        assert (status, code_of(text)) == (401, "UNAUTHORIZED")
        assert 'scope="repository:a:pull"' in headers["WWW-Authenticate"]

        def token(scope: str, **sent: str) -> str:
            return str(json.loads(ask(server, "GET", f"/token?scope={scope}", **sent)[1])["token"])

        pull, push = token("repository:a:pull,push"), token("repository:a:pull,push", Authorization=basic)
        assert ask(server, "GET", "/v2/a/tags/list", Authorization=f"Bearer {pull}")[0] == 200
        assert ask(server, "POST", "/v2/a/blobs/uploads/", b"", Authorization=f"Bearer {pull}")[0] == 401
        assert ask(server, "POST", "/v2/a/blobs/uploads/", b"", Authorization=f"Bearer {push}")[0] == 202
        assert ask(server, "GET", "/v2/b/tags/list", Authorization=f"Bearer {push}")[0] == 401
        auth.revoke_all()
        assert ask(server, "GET", "/v2/a/tags/list", Authorization=f"Bearer {push}")[0] == 401


def test_a_stopped_registry_refuses_connections() -> None:
    """As a registry that is down does; stopping twice is harmless."""
    with InMemoryRegistry() as server:
        server.stop()
        with pytest.raises(urllib.error.URLError):
            ask(server, "GET", "/v2/")


def test_it_is_used_in_a_with_block() -> None:
    """Before, it has no address."""
    with pytest.raises(RuntimeError, match="with block"):
        _ = InMemoryRegistry().host
