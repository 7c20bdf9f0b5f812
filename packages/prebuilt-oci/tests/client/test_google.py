"""What is particular about Google's registries: their names, and what helps where they refuse."""

from __future__ import annotations

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import ForbiddenError, RateLimitedError, RegistryError, UnauthorizedError
from prebuilt.core.settings import Settings
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.failure import Refusal
from prebuilt.oci.google import ArtifactRepository, google_location, is_container_registry
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

HOST = "europe-west1-docker.pkg.dev"
CREATION = (
    "gcloud artifacts repositories create flows --repository-format=docker --location=europe-west1 --project=acme-ml"
)


def refused(
    status: int, method: str = "HEAD", path: str = "/v2/acme-ml/flows/x/manifests/1", host: str = HOST
) -> RegistryError:
    """Return the error for an answer without a body."""
    return Refusal(tried="ask", method=method, url=f"https://{host}{path}", status=status).to_error()


@pytest.mark.parametrize(
    ("host", "path", "resource"),
    [
        (HOST, "acme-ml/flows/x", "projects/acme-ml/locations/europe-west1/repositories/flows"),
        (HOST, "example.com/ml-team/flows/x", "projects/example.com:ml-team/locations/europe-west1/repositories/flows"),
        ("gcr.io", "acme-ml/x", "projects/acme-ml/locations/us/repositories/gcr.io"),
        ("eu.gcr.io", "acme-ml/a/b/c", "projects/acme-ml/locations/europe/repositories/eu.gcr.io"),
    ],
)
def test_an_image_is_in_a_repository(host: str, path: str, resource: str) -> None:
    """The name of an image says project, location and repository."""
    found = ArtifactRepository.find(host, path)
    assert found is not None
    assert found.resource == resource


def test_other_hosts_are_not_googles() -> None:
    """Nor is what merely looks like it."""
    for host in ("docker.io", "gcr.io.example.com", "k8s.gcr.io", "us-python.pkg.dev"):
        assert google_location(host) is None
        assert ArtifactRepository.find(host, "acme-ml/flows/x") is None
    assert ArtifactRepository.find(HOST, "acme-ml") is None
    assert [is_container_registry(host) for host in ("gcr.io", HOST)] == [True, False]


def test_denials_name_permission_and_role() -> None:
    """A request says what it needs; so does one for a token, by its scope."""
    for method, path, permission, role in (
        ("HEAD", "/v2/acme-ml/flows/x/manifests/1", "downloadArtifacts", "reader"),
        ("POST", "/v2/acme-ml/flows/x/blobs/uploads/", "uploadArtifacts", "writer"),
        ("GET", "/v2/token?scope=repository%3Aacme-ml%2Fflows%2Fx%3Apull", "downloadArtifacts", "reader"),
        ("GET", "/v2/token?scope=repository%3Aacme-ml%2Fflows%2Fx%3Apull%2Cpush", "uploadArtifacts", "writer"),
    ):
        error = refused(403, method, path)
        assert isinstance(error, ForbiddenError)
        assert f"artifactregistry.repositories.{permission} (roles/artifactregistry.{role})" in error.remedy
        assert CREATION in error.remedy


def test_other_refusals_say_what_helps() -> None:
    """Who are you, too many, and names that were never moved."""
    assert isinstance(refused(401), UnauthorizedError)
    assert "gcloud auth application-default login" in refused(401).remedy
    assert isinstance(refused(429), RateLimitedError)
    assert "quota of Artifact Registry" in refused(429).remedy
    moved = refused(412, "GET", "/v2/token?scope=repository:acme-ml/x:push", "asia.gcr.io")
    assert "METAFLOW_PREBUILT_GCR_HOST=asia-docker.pkg.dev" in moved.remedy
    base = refused(412, "HEAD", "/v2/acme-ml/x/manifests/1", "gcr.io")
    assert "for a base image, name another" in base.remedy
    assert "--projects=acme-ml" in moved.remedy
    assert refused(500).remedy.startswith("try again later")


def test_errors_of_googles_apis_are_read() -> None:
    """They are an object, where others have a list or a word."""
    body = b'{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}'
    assert Refusal(tried="ask", method="GET", url="https://x/", status=403, body=body).first_error() == (
        "PERMISSION_DENIED",
        "no",
    )


class TestTokenServices:
    """What holds for every registry with a token service."""

    def test_a_password_that_it_refuses_is_replaced(self) -> None:
        """The source is asked for another one, once."""
        given = [Credentials(username="u", secret=secret) for secret in ("ended", "good", "good")]
        asked: list[Credentials | None] = []

        def source(rejected: Credentials | None = None) -> Credentials:
            asked.append(rejected)
            return given[len(asked) - 1]

        with InMemoryRegistry(auth=RegistryAuth(scheme="token", users={"u": "good"})) as registry:
            repository = RegistryRepository(registry.repository("x"), credentials=source, settings=Settings({}, {}))
            assert repository.resolve("1") is None
        assert asked == [None, given[0]]

    def test_a_password_that_cannot_be_replaced_is_an_error(self) -> None:
        """Nothing is asked for ever."""
        wrong = Credentials(username="u", secret="wrong")
        with InMemoryRegistry(auth=RegistryAuth(scheme="token", users={"u": "good"})) as registry:
            repository = RegistryRepository(
                registry.repository("x"), credentials=lambda rejected=None: wrong, settings=Settings({}, {})
            )
            with pytest.raises(UnauthorizedError):
                repository.resolve("1")

    def test_a_repository_that_it_does_not_know_has_nothing(self) -> None:
        """It is not there, like one that the registry does not know; pushing to it is an error."""
        with InMemoryRegistry(auth=RegistryAuth(scheme="token", users={"u": "good"})) as registry:
            good = Credentials(username="u", secret="good")
            repository = RegistryRepository(registry.repository("x"), credentials=good, settings=Settings({}, {}))
            registry.fail("GET", "/token", status=404, code="NAME_UNKNOWN", times=3)
            assert repository.resolve("1") is None
            assert repository.get_manifest("1") is None
            with pytest.raises(RegistryError, match="NAME_UNKNOWN"):
                repository.put_manifest("1", "application/vnd.oci.image.index.v1+json", b"{}")
