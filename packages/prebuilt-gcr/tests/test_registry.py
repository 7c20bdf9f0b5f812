"""The registry ``gcr`` against a registry that takes the tokens that Google's APIs, which the tests play, gave."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import ForbiddenError, RegistryError, SettingError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plugins import IMAGE_REGISTRIES
from prebuilt.core.spec import EnvId
from prebuilt.gcr import GCRRegistry
from prebuilt.oci.media_types import OCI_INDEX
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.google_api import LOCATION, PROJECT
from prebuilt.testing.google_cloud import HOST, GoogleCloud
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_store import sha256_digest

ENV_ID = EnvId("1" * 40, "2" * 40, "linux-64")
INDEX = b'{"schemaVersion":2,"manifests":[]}'
DATA = b"layer"
LAYER = Descriptor(media_type="application/octet-stream", digest=sha256_digest(DATA), size=len(DATA))
IMAGES = f"projects/{PROJECT}/locations/{LOCATION}/repositories/metaflow-prebuilt"
CREATION = (
    "gcloud artifacts repositories create metaflow-prebuilt --repository-format=docker"
    f" --location={LOCATION} --project={PROJECT}"
)


@pytest.mark.usefixtures("google")
class TestGCRRegistry(RegistryContract):
    """Every clause of the contract, over TLS, by a real host name."""

    @pytest.fixture
    def new_registry(self) -> type[ImageRegistry]:
        """Give the class."""
        return GCRRegistry

    @pytest.fixture
    def broken_registry(self, monkeypatch: pytest.MonkeyPatch) -> ImageRegistry:
        """Give one whose host refuses connections."""
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        return GCRRegistry()


class TestGCRRegistryOnLoopback(RegistryContract):
    """The same with a plain registry on this machine, where nobody has a Google login."""

    @pytest.fixture
    def new_registry(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ImageRegistry]]:
        """Give the class."""
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        with InMemoryRegistry() as server:
            monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", server.host)
            yield GCRRegistry


def opened(registry: GCRRegistry) -> Repository:
    """Return the repository of images, which is there afterwards, as a builder opens it."""
    return open_repository(registry.repository, registry.credentials(registry.image_tag(ENV_ID)))


class TestNames:
    def test_is_found_by_its_name(self, google: GoogleCloud) -> None:
        """METAFLOW_PREBUILT_IMAGE_REGISTRY=gcr selects it."""
        assert isinstance(IMAGE_REGISTRIES.get("gcr"), GCRRegistry)

    def test_the_project_is_that_of_the_credentials(self, google: GoogleCloud) -> None:
        """With no project set, images are in that of the key, and no token is needed to know it."""
        assert (
            GCRRegistry().image_tag(ENV_ID).startswith(f"{HOST}/{PROJECT}/metaflow-prebuilt/metaflow-prebuilt:v1-1111")
        )
        assert google.api.asked == []

    def test_settings_come_first(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """Project, repository and namespace are those of the settings."""
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", "other-project")
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_REPOSITORY", "team")
        monkeypatch.setenv("METAFLOW_PREBUILT_IMAGE_NAMESPACE", "ml/flows")
        assert GCRRegistry().repository == f"{HOST}/other-project/team/ml/flows"

    def test_naming_an_image_imports_no_sdk(self, google: GoogleCloud) -> None:
        """Neither google-auth nor an HTTP client is imported before somebody is asked."""
        code = (
            "import sys; from prebuilt.gcr import GCRRegistry; from prebuilt.core.spec import EnvId;"
            "GCRRegistry().image_tag(EnvId('1' * 40, '2' * 40, 'linux-64'));"
            "sys.exit(', '.join({'google.auth', 'requests', 'httpx2'} & set(sys.modules)) or 0)"
        )
        settings = {"METAFLOW_PREBUILT_GCR_PROJECT": PROJECT}
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **settings})

    def test_no_project_anywhere(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """Credentials without a project need the setting, and the error names it."""
        monkeypatch.setenv(
            "GOOGLE_APPLICATION_CREDENTIALS", google.credentials_file("authorized_user", quota_project_id=None)
        )
        with pytest.raises(SettingError, match="METAFLOW_PREBUILT_GCR_PROJECT"):
            _ = GCRRegistry().repository


class TestAnswers:
    def test_a_second_deploy_asks_little(self, google: GoogleCloud) -> None:
        """An image that is there costs one token of Google's, one of the registry's, and a HEAD; others cost a HEAD each."""
        first = GCRRegistry()
        opened(first).put_manifest(first.image_tag(ENV_ID).rpartition(":")[2], OCI_INDEX, INDEX)
        seen = run_second_deploy()
        assert seen == ["resolved"] * 3
        google.registry.forget_requests()
        google.api.asked.clear()
        run_second_deploy()
        assert [request.method for request in google.registry.requests] == ["HEAD", "GET", "HEAD", "HEAD", "HEAD"]
        assert google.api.asked == ["POST /token"]

    def test_credentials_open_the_registry(self, google: GoogleCloud) -> None:
        """What builders are handed is a token with its end; Docker, buildx and Kaniko take it as it is."""
        credentials = GCRRegistry().credentials(f"{HOST}/{PROJECT}/metaflow-prebuilt/metaflow-prebuilt:v1")
        assert credentials is not None
        assert credentials.username == "oauth2accesstoken"
        assert credentials.secret in google.api.tokens
        assert credentials.secret not in repr(credentials)
        assert credentials.expires_at is not None
        assert timedelta(minutes=50) < credentials.expires_at - datetime.now(timezone.utc) <= timedelta(hours=1)

    def test_a_repository_that_the_token_service_does_not_know_has_no_images(self, google: GoogleCloud) -> None:
        """Who says "no such repository" says "not there", whoever it is."""
        google.registry.fail("GET", "/v2/token", status=404, code="NAME_UNKNOWN", times=2)
        registry = GCRRegistry()
        assert registry.resolve(registry.push_tag(ENV_ID)) is None
        assert registry.documents().get("lock-1") is None

    def test_other_registries_do_not_get_the_token(self, google: GoogleCloud) -> None:
        """What is not at our host is opened with what the client finds."""
        registry = GCRRegistry()
        assert registry._login("docker.io/library/python") is None
        assert registry._login(f"{HOST}.example.com/flows") is None
        assert google.api.tokens == set()


def run_second_deploy() -> list[str]:
    """Ask three times for an image in a process that has done nothing before; return what came."""
    code = (
        "from prebuilt.gcr import GCRRegistry; from prebuilt.core.spec import EnvId; r = GCRRegistry()\n"
        "for _ in range(3):\n"
        "    print('resolved' if r.resolve(r.push_tag(EnvId('1' * 40, '2' * 40, 'linux-64'))) else 'absent')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


class TestRepositories:
    def test_a_missing_repository_is_made_by_who_pushes(self, google: GoogleCloud) -> None:
        """Looking makes nothing; to push makes the repository, and to keep a document makes that of documents."""
        registry = GCRRegistry()
        assert registry.resolve(registry.push_tag(ENV_ID)) is None
        assert google.api.repositories == set()
        opened(registry).push_blob(LAYER, lambda: io.BytesIO(DATA))
        assert google.api.repositories == {IMAGES}
        registry.documents().put("lock-1", b"{}")
        assert google.api.repositories == {IMAGES, f"{IMAGES}-documents"}

    def test_the_operation_is_awaited(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """A repository takes a while to be made; a push begins when it is there."""
        monkeypatch.setattr("prebuilt.gcr.repositories._LOOK_EVERY_S", 0.01)
        google.api.takes = 3
        opened(GCRRegistry()).push_blob(LAYER, lambda: io.BytesIO(DATA))
        assert google.api.count("GET .*/operations/") == 3

    def test_an_operation_may_fail(self, google: GoogleCloud) -> None:
        """Then its error is shown, with the command that makes the repository."""
        google.api.operation_error = {"code": 9, "message": "constraints/gcp.resourceLocations violated"}
        with pytest.raises(RegistryError, match="resourceLocations") as caught:
            GCRRegistry().credentials("")
        assert CREATION in caught.value.remedy

    def test_an_operation_that_never_ends(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is waited for so long and no longer."""
        monkeypatch.setattr("prebuilt.gcr.repositories._LONGEST_CREATION_S", 0.0)
        monkeypatch.setattr("prebuilt.gcr.repositories._LOOK_EVERY_S", 0.01)
        google.api.takes = 1000
        with pytest.raises(RegistryError, match="not there after"):
            GCRRegistry().credentials("")

    def test_eight_deploys_at_once_make_one_repository(self, google: GoogleCloud) -> None:
        """Who comes second finds it there."""
        registries = [GCRRegistry() for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda registry: registry.credentials(""), registries))
        assert google.api.repositories == {IMAGES}
        assert google.api.count("POST /token") == 1

    def test_who_loses_the_race_goes_on(self, google: GoogleCloud) -> None:
        """A repository that somebody made between looking and making is as good."""
        google.make_repository()
        google.api.refusals.append((404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "not found"}}))
        assert GCRRegistry().credentials("") is not None

    def test_making_can_be_forbidden(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then the API is not asked, and a push to a repository that is not there says what makes it."""
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_CREATE_REPOSITORY", "0")
        with pytest.raises(RegistryError, match="NAME_UNKNOWN") as caught:
            opened(GCRRegistry()).push_blob(LAYER, lambda: io.BytesIO(DATA))
        assert caught.value.remedy == f"create it: {CREATION}"
        assert google.api.asked == ["POST /token"]

    def test_names_of_container_registry_have_a_repository_too(
        self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is behind gcr.io is a repository of that name in the United States; documents are beside the images."""
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", "gcr.io")
        registry = GCRRegistry()
        opened(registry).push_blob(LAYER, lambda: io.BytesIO(DATA))
        registry.documents().put("lock-1", b"{}")
        assert registry.repository == f"gcr.io/{PROJECT}/metaflow-prebuilt"
        assert google.api.repositories == {f"projects/{PROJECT}/locations/us/repositories/gcr.io"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("action", "role"),
        [("uploadArtifacts", "artifactregistry.writer"), ("downloadArtifacts", "artifactregistry.reader")],
    )
    def test_each_missing_permission_is_named(self, google: GoogleCloud, action: str, role: str) -> None:
        """With the role that has it, the repository, and the command that makes that if it is missing."""
        google.make_repository()
        google.api.denied.add(f"artifactregistry.repositories.{action}")
        repository = opened(GCRRegistry())
        with pytest.raises(ForbiddenError) as caught:
            repository.push_blob(LAYER, lambda: io.BytesIO(DATA)) if action[0] == "u" else repository.resolve("v1")
        for words in (f"artifactregistry.repositories.{action}", role, IMAGES, CREATION):
            assert words in caught.value.remedy

    def test_a_denied_head_names_its_permission(self, google: GoogleCloud) -> None:
        """The answer to a HEAD has no body, and the permission is known all the same."""
        google.make_repository()
        google.registry.fail("HEAD", "manifests", status=403)
        with pytest.raises(ForbiddenError, match="downloadArtifacts"):
            GCRRegistry().resolve(GCRRegistry().push_tag(ENV_ID))

    def test_container_registry_takes_no_more_pushes(
        self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A project whose gcr.io was never moved is told so, with the name that works and the command that moves it."""
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", "eu.gcr.io")
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_CREATE_REPOSITORY", "0")
        repository = opened(GCRRegistry())
        google.registry.fail("GET", "/v2/token", status=412, code="UNKNOWN")
        with pytest.raises(RegistryError, match="2025-03-18") as caught:
            repository.push_blob(LAYER, lambda: io.BytesIO(DATA))
        assert "METAFLOW_PREBUILT_GCR_HOST=europe-docker.pkg.dev" in caught.value.remedy
        assert f"gcloud artifacts docker upgrade migrate --projects={PROJECT}" in caught.value.remedy

    def test_immutable_tags_take_the_same_image_twice(self, google: GoogleCloud) -> None:
        """Two who bake the same at once both succeed; another image is refused."""
        google.make_repository()
        google.registry.is_immutable = lambda _, tag: tag.startswith("v1-")
        for _ in range(2):
            opened(GCRRegistry()).put_manifest("v1-a", OCI_INDEX, INDEX)
        with pytest.raises(RegistryError, match="immutable"):
            opened(GCRRegistry()).put_manifest("v1-a", OCI_INDEX, INDEX[:-1] + b',"annotations":{}}')


class TestOtherHosts:
    def test_a_mirror_that_asks_gets_a_token(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """A registry on loopback that checks Google's tokens is opened with one, and builders are handed it."""
        google.make_repository("gcr.io", "us")
        with InMemoryRegistry(auth=google.tokens) as server:
            monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", server.host)
            monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", PROJECT)
            registry = GCRRegistry()
            assert registry.resolve(registry.push_tag(ENV_ID)) is None
            credentials = registry.credentials(registry.push_tag(ENV_ID))
            assert credentials is not None
            assert credentials.secret in google.api.tokens
            registry.documents().put("lock-1", b"{}")

    def test_a_registry_that_asks_nobody_gets_none(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """A plain registry sees no token, though there is one to be had."""
        with InMemoryRegistry() as server:
            monkeypatch.setenv("METAFLOW_PREBUILT_GCR_HOST", server.host)
            registry = GCRRegistry()
            assert registry.credentials(registry.push_tag(ENV_ID)) is None
            assert registry.repository == f"{server.host}/metaflow-prebuilt"
        assert google.api.tokens == set()
