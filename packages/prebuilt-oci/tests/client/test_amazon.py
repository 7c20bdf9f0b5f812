"""What the client knows about Amazon ECR, against answers in Amazon's form."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace

import httpx2
import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import ForbiddenError, RateLimitedError, RegistryError, UnauthorizedError
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.oci import upload
from prebuilt.oci.amazon import engine_remedy, is_ecr
from prebuilt.oci.client import RegistryRepository

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
DATA = b"x" * 3000
BLOB = Descriptor(media_type="a/b", digest=f"sha256:{hashlib.sha256(DATA).hexdigest()}", size=len(DATA))


class Registry:
    """Answers every request with `status`, uploads with an address, and remembers them."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Answer."""
        request.read()
        self.asked.append(request.method)
        if self.status == 202:
            headers = {"Location": f"https://{HOST}/v2/flows/blobs/uploads/1"}
            status = {"HEAD": 404, "POST": 202, "PUT": 201}[request.method]
            return httpx2.Response(status, headers=headers)
        return httpx2.Response(self.status, headers=self.headers)

    def open(self) -> RegistryRepository:
        """Return a repository of it."""
        return opened(self)


def opened(answer: Callable[[httpx2.Request], httpx2.Response]) -> RegistryRepository:
    """Return a repository of ECR that gives these answers."""
    return RegistryRepository(
        f"{HOST}/flows",
        credentials=Credentials(username="AWS", secret="token"),
        settings=Settings({}, {}),
        backoff=Backoff(attempts=1),
        transport=httpx2.MockTransport(answer),
    )


def pull(repository: RegistryRepository) -> bytes:
    """Return the blob."""
    with repository.open_blob(BLOB) as chunks:
        return b"".join(chunks)


@pytest.mark.parametrize(
    "host",
    [
        HOST,
        "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
        "123456789012.dkr-ecr.eu-west-1.on.aws",
        "123456789012.dkr-ecr-fips.us-east-1.on.aws",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
        "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
    ],
)
def test_its_hosts_are_known(host: str) -> None:
    """Every form of a private registry's name is recognised."""
    assert is_ecr(host)


@pytest.mark.parametrize("host", ["public.ecr.aws", f"{HOST}.example.com", "ecr.eu-west-1.amazonaws.com", "docker.io"])
def test_other_hosts_are_not_it(host: str) -> None:
    """A name that only contains such a form is another's."""
    assert not is_ecr(host)


def test_each_denial_names_the_action() -> None:
    """403 has no body where the method was HEAD: the permission that is missing is named nevertheless."""
    repository = Registry(403).open()
    manifest = b'{"config":{},"layers":[]}'
    denied = {
        "ecr:BatchGetImage": lambda: repository.resolve("v1"),
        "ecr:PutImage": lambda: repository.put_manifest("v1", "application/vnd.oci.image.manifest.v1+json", manifest),
        "ecr:BatchCheckLayerAvailability": lambda: repository.has_blob(BLOB.digest),
        "ecr:GetDownloadUrlForLayer": lambda: pull(repository),
    }
    for action, ask in denied.items():
        with pytest.raises(ForbiddenError) as caught:
            ask()
        assert f"allow {action} " in caught.value.remedy


@pytest.mark.parametrize(
    ("method", "action"),
    [("POST", "ecr:InitiateLayerUpload"), ("PUT", "ecr:CompleteLayerUpload")],
)
def test_a_denied_upload_names_the_action(method: str, action: str) -> None:
    """Beginning an upload and ending it are permissions of their own."""
    registry = Registry(202)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(403) if request.method == method else registry(request)

    repository = opened(answer)
    with pytest.raises(ForbiddenError) as caught:
        repository.push_blob(BLOB, lambda: io.BytesIO(DATA))
    assert action in caught.value.remedy


def test_nobody_is_sent_to_docker_login_only() -> None:
    """401 speaks of AWS credentials."""
    with pytest.raises(UnauthorizedError, match="AWS credentials"):
        Registry(401).open().resolve("v1")


def test_a_repository_in_another_region_is_not_there() -> None:
    """To push where there is none says where it was looked for, how to have it looked for elsewhere, and how to create it."""
    answer = httpx2.Response(404, json={"errors": [{"code": "NAME_UNKNOWN", "message": "does not exist"}]})
    repository = opened(lambda _: answer)
    assert repository.resolve("v1") is None
    with pytest.raises(RegistryError, match="NAME_UNKNOWN") as caught:
        repository.put_manifest("v1", "application/vnd.oci.image.index.v1+json", b'{"manifests":[]}')
    assert "the account 123456789012 in eu-west-1" in caught.value.remedy
    assert "correct METAFLOW_PREBUILT_ECR_REGION" in caught.value.remedy
    assert "aws ecr create-repository --region eu-west-1 --repository-name flows" in caught.value.remedy


@pytest.mark.parametrize(
    ("said", "host", "words"),
    [
        (
            "denied: User: arn:aws:iam::123456789012:user/me is not authorized to perform: ecr:InitiateLayerUpload on resource: x",
            "",
            "allow ecr:InitiateLayerUpload",
        ),
        ("denied: Your authorization token has expired. Reauthenticate and try again.", HOST, f"docker logout {HOST}"),
        ("unexpected status from HEAD request to https://x/v2/flows/blobs/1: 403 Forbidden", HOST, "table of actions"),
        ("unexpected status from HEAD request to https://x/v2/flows/blobs/1: 403 Forbidden", "ghcr.io", ""),
        ("no space left on device", HOST, ""),
    ],
)
def test_engines_are_understood(said: str, host: str, words: str) -> None:
    """What Docker and BuildKit pass on of ECR's refusals says which action to allow, and nobody is sent to `docker login`."""
    remedy = engine_remedy(said, host)
    assert words in remedy
    assert bool(remedy) is bool(words)


def test_a_large_blob_goes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also above the size from which others get chunks, since ECR loses all chunks but the first."""
    monkeypatch.setattr(upload, "MONOLITHIC_LIMIT_BYTES", 1000)
    registry = Registry(202)
    registry.open().push_blob(BLOB, lambda: io.BytesIO(DATA))
    assert registry.asked == ["HEAD", "POST", "PUT"]


def test_a_layer_above_the_limit_is_not_sent() -> None:
    """ECR has a limit that nobody can raise: it is named before anything goes over the line."""
    registry = Registry(202)
    large = replace(BLOB, size=(52_000 << 20) + 1)
    with pytest.raises(RegistryError, match="it has 52,001 MiB; a layer of Amazon ECR has 52,000 MiB at most"):
        registry.open().push_blob(large, lambda: io.BytesIO(DATA))
    assert registry.asked == ["HEAD"]


@pytest.mark.parametrize(
    ("method", "action"),
    [("HEAD", "ecr:BatchCheckLayerAvailability"), ("POST", "ecr:InitiateLayerUpload"), ("PUT", "ecr:UploadLayerPart")],
)
def test_throttling_names_the_rate_to_raise(method: str, action: str) -> None:
    """Each action of ECR has a rate of its own; nobody is told to log in who is."""
    registry = Registry(202)

    def answer(request: httpx2.Request) -> httpx2.Response:
        throttled = httpx2.Response(429, json={"errors": [{"code": "TOOMANYREQUESTS", "message": "Rate exceeded"}]})
        return throttled if request.method == method else registry(request)

    with pytest.raises(RateLimitedError) as caught:
        opened(answer).push_blob(BLOB, lambda: io.BytesIO(DATA))
    assert f"ask AWS for a higher rate of {action}" in caught.value.remedy
    assert "log in" not in caught.value.remedy


def test_a_refused_blob_is_not_tried_in_chunks() -> None:
    """A blob that ECR does not take whole, it does not take."""
    registry = Registry(202)

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(413) if request.method == "PUT" else registry(request)

    repository = opened(answer)
    with pytest.raises(RegistryError, match=r"413.*52,000 MiB at most"):
        repository.push_blob(BLOB, lambda: io.BytesIO(DATA))
    assert registry.asked == ["HEAD", "POST"]
