"""Tokens from every kind of credentials: one for all, replaced before they end and when the registry refuses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import (
    ForbiddenError,
    PrebuiltError,
    RegistryUnreachableError,
    SettingError,
    UnauthorizedError,
)
from prebuilt.core.settings import Settings
from prebuilt.gcr import GCRRegistry
from prebuilt.gcr import identity as identity_module
from prebuilt.gcr.identity import Identity
from prebuilt.gcr.login import find_source
from prebuilt.oci.config import NetworkConfig
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.clock import Clock
from prebuilt.testing.google_api import PROJECT
from prebuilt.testing.google_cloud import HOST, GoogleCloud
from prebuilt.testing.served import serving

HOUR_S = 3600.0
NAME = f"{HOST}/{PROJECT}/metaflow-prebuilt/metaflow-prebuilt"


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def identity(google: GoogleCloud, clock: Clock) -> Identity:
    """Return the identity of whoever runs this process."""
    google.make_repository()
    return Identity(NetworkConfig.from_settings(Settings.load()), clock)


@pytest.fixture
def repository(identity: Identity) -> Repository:
    """Return a repository that is opened with it."""
    return open_repository(NAME, identity)


def push(repository: Repository, data: bytes) -> None:
    """Push a blob."""
    assert repository.has_blob(push_bytes(repository, data).digest)


@pytest.mark.parametrize("kind", ["service_account", "authorized_user", "impersonated", "external"])
def test_every_kind_of_credentials_opens_the_registry(
    google: GoogleCloud, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A key, a user's login, impersonation, and workload identity federation."""
    google.make_repository()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", google.credentials_file(kind))
    monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", PROJECT)
    push(open_repository(NAME, GCRRegistry().credentials(NAME)), b"layer")
    assert google.api.count("generateAccessToken") == (kind in {"impersonated", "external"})


def test_a_user_who_is_logged_in(google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login of gcloud is found where it was left, its project pays for the API, and gcloud is not started."""
    login = Path(google.credentials_file("authorized_user"))
    folder = Path(os.environ["CLOUDSDK_CONFIG"])
    folder.mkdir()
    login.rename(folder / "application_default_credentials.json")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", PROJECT)
    monkeypatch.setattr("google.auth._cloud_sdk.get_project_id", lambda: pytest.fail("gcloud was started"))
    assert GCRRegistry().credentials(NAME) is not None
    assert set(google.api.quota_projects) == {PROJECT}


def test_the_project_of_a_users_login(google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's login without another project has the one that pays for its requests."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", google.credentials_file("authorized_user"))
    assert GCRRegistry().repository == NAME


def test_the_project_of_the_environment_comes_first(google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """GOOGLE_CLOUD_PROJECT means the same to us as to every client of Google's."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "other-project")
    assert GCRRegistry().repository.startswith(f"{HOST}/other-project/")


def test_a_machine_with_a_service_account(google: GoogleCloud) -> None:
    """On Compute Engine and GKE, metadata say who we are and in which project: Workload Identity needs no more."""
    google.make_repository()
    environ = {name: value for name, value in os.environ.items() if name != "GOOGLE_APPLICATION_CREDENTIALS"}
    server = google.api.url.removeprefix("http://")
    environ |= {
        "GCE_METADATA_HOST": server,
        "GCE_METADATA_IP": server,
        "GCE_METADATA_TIMEOUT": "60",  # google-auth tells the user of each attempt that was too slow
        "NO_GCE_CHECK": "",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    code = "from prebuilt.gcr import GCRRegistry; r = GCRRegistry(); print(r.repository, r.credentials('').username)"
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == ([NAME, "oauth2accesstoken"], "")


@contextmanager
def _another_cloud() -> Iterator[tuple[str, int]]:
    """Give the address of a metadata server as those of other clouds: it answers, and refuses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield "127.0.0.1", server.server_port


@pytest.fixture
def metadata_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[tuple[str, int]], None]]:
    """Return what sets the address at which metadata servers of all clouds are; this machine is no cloud's by itself."""
    monkeypatch.setattr(identity_module, "_PRODUCT", tmp_path / "none")
    monkeypatch.setattr(identity_module, "_METADATA_TIMEOUT_S", 60.0)  # a busy machine may answer itself late
    monkeypatch.setenv("NO_GCE_CHECK", "")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")

    def at(address: tuple[str, int]) -> None:
        monkeypatch.setattr(identity_module, "_METADATA_ADDRESS", address)
        identity_module._is_on_google.cache_clear()

    yield at
    identity_module._is_on_google.cache_clear()


def test_a_machine_of_google_is_known(google: GoogleCloud, metadata_at: Callable[[tuple[str, int]], None]) -> None:
    """Its metadata server says that it is Google's."""
    host, _, port = google.api.url.removeprefix("http://").partition(":")
    metadata_at((host, int(port)))
    assert Identity(NetworkConfig.from_settings(Settings.load())).is_there()


def test_a_machine_of_another_cloud_is_none_of_google(
    google: GoogleCloud, metadata_at: Callable[[tuple[str, int]], None]
) -> None:
    """EC2 and Azure have metadata servers at the same address: public base images of Google's are pulled from there, too."""
    with _another_cloud() as address:
        metadata_at(address)
        assert open_repository("gcr.io/public/static").resolve("1") is None
    assert google.api.asked == []


def test_one_token_serves_all(google: GoogleCloud, identity: Identity) -> None:
    """Threads that ask at once get the same one, which was fetched once."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: identity(), range(32)))
    assert len(found) == len(google.api.tokens) == 1


def test_tokens_are_replaced_early(google: GoogleCloud, identity: Identity, clock: Clock) -> None:
    """A builder that cannot ask again is handed one that is good for half an hour at least."""
    google.api.lifetime_s = 29 * 60
    first = identity()
    clock.now_s += 61
    google.api.lifetime_s = 3600
    second = identity()
    clock.now_s += 61
    assert first != second == identity()


def test_a_token_that_ends_in_the_middle_of_a_push_is_replaced(
    google: GoogleCloud, repository: Repository, clock: Clock
) -> None:
    """The registry and its token service refuse it, another is fetched, and the push goes on where it was."""
    push(repository, b"first layer")
    google.api.tokens.clear()
    google.tokens.revoke_all()
    clock.now_s += HOUR_S
    push(repository, b"second layer")
    assert len(google.api.tokens) == 1


def test_a_builder_that_was_handed_a_token_gets_another(google: GoogleCloud, identity: Identity) -> None:
    """A push that outlasts the token that it was begun with goes on with a new one."""
    repository = open_repository(NAME, identity())
    push(repository, b"first layer")
    google.api.tokens.clear()
    google.tokens.revoke_all()
    push(repository, b"second layer")
    assert len(google.api.tokens) == 1


def test_a_young_token_is_not_refused_for_its_age(
    google: GoogleCloud, repository: Repository, identity: Identity
) -> None:
    """What is forbidden stays so, and Google is not asked for another token each time."""
    identity()
    google.registry.fail("HEAD", "manifests", status=403, times=3)
    for _ in range(3):
        with pytest.raises(ForbiddenError, match="downloadArtifacts"):
            repository.resolve("v1")
    assert len(google.api.tokens) == 1


class TestBaseImages:
    def test_private_ones_need_no_login_of_docker(self, google: GoogleCloud) -> None:
        """A base image at any of Google's registries is opened with the same credentials, whoever opens it."""
        google.make_repository("gcr.io", "us")
        assert open_repository(f"gcr.io/{PROJECT}/bases").resolve("1") is None
        assert google.api.count("POST /token") == 1

    def test_public_ones_need_no_login_at_all(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without Google credentials, what anybody may pull is pulled."""
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        assert open_repository("gcr.io/public/static").resolve("1") is None
        assert google.api.asked == []

    def test_no_other_host_is_ours(self) -> None:
        """Tokens of Google's are offered to its own registries, and to the host that a setting names."""
        for host in ("docker.io", "ghcr.io", "gcr.io.example.com", "127.0.0.1:5000"):
            assert find_source(host, Settings({}, {})) is None


class TestErrors:
    def test_no_credentials(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says both ways to have some, and nobody was asked."""
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", PROJECT)
        with pytest.raises(
            UnauthorizedError, match=r"gcloud auth application-default login.*GOOGLE_APPLICATION_CREDENTIALS"
        ):
            GCRRegistry().credentials(NAME)
        assert google.api.asked == []

    @pytest.mark.parametrize("content", [None, "{", "{}", '{"type": "service_account"}', '{"type": "unknown"}'])
    def test_a_file_that_is_none(
        self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
    ) -> None:
        """A file that is missing, no JSON, or something else is named with its setting."""
        file = tmp_path / "key.json"
        if content is not None:
            file.write_text(content)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        with pytest.raises(SettingError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
            GCRRegistry().credentials(NAME)
        assert caught.value.at == str(file)

    def test_a_login_that_was_revoked(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says so, and how to log in again."""
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", google.credentials_file("authorized_user"))
        google.api.refresh_tokens.clear()
        with pytest.raises(UnauthorizedError, match=r"expired or revoked.*gcloud auth application-default login"):
            GCRRegistry().credentials(NAME)

    def test_a_key_that_was_deleted(self, google: GoogleCloud) -> None:
        """A signature that Google does not know means that the key is gone."""
        key = _another_key()
        google.credentials_file("service_account", private_key=key)
        with pytest.raises(UnauthorizedError, match="that key is not valid any more") as caught:
            GCRRegistry().credentials(NAME)
        assert key not in str(caught.value)

    def test_impersonation_that_is_denied(self, google: GoogleCloud, monkeypatch: pytest.MonkeyPatch) -> None:
        """The permission is named, with the roles that have it."""
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", google.credentials_file("impersonated"))
        monkeypatch.setenv("METAFLOW_PREBUILT_GCR_PROJECT", PROJECT)
        google.api.denied.add("iam.serviceAccounts.getAccessToken")
        with pytest.raises(ForbiddenError, match=r"roles/iam\.serviceAccountTokenCreator"):
            GCRRegistry().credentials(NAME)

    def test_nobody_answers(self, google: GoogleCloud) -> None:
        """A token service that cannot be reached is no refusal."""
        google.credentials_file("service_account", token_uri="http://127.0.0.1:1/token")
        with pytest.raises(RegistryUnreachableError, match="proxy settings"):
            GCRRegistry().credentials(NAME)


@pytest.mark.parametrize(
    ("status", "code", "message", "words"),
    [
        (403, "PERMISSION_DENIED", "Permission 'x' denied", "artifactregistry.repositories.get"),
        (403, "PERMISSION_DENIED", "a role with the serviceusage.services.use permission", "set-quota-project"),
        (403, "PERMISSION_DENIED", "API has not been used in project 12 before or it is disabled", "--project=12"),
        (403, "PERMISSION_DENIED", "API has not been used in project 764086051850 before", "set-quota-project"),
        (403, "PERMISSION_DENIED", "The API requires a quota project, which is not set", "set-quota-project"),
        (400, "INVALID_ARGUMENT", "invalid location", "METAFLOW_PREBUILT_GCR_HOST"),
        (401, "UNAUTHENTICATED", "invalid credentials", "gcloud auth application-default login"),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded", "METAFLOW_PREBUILT_GCR_CREATE_REPOSITORY=0"),
        (412, "FAILED_PRECONDITION", "organization policy", "gcloud artifacts repositories create metaflow-prebuilt"),
    ],
)
def test_the_api_may_refuse(
    google: GoogleCloud, monkeypatch: pytest.MonkeyPatch, status: int, code: str, message: str, words: str
) -> None:
    """The error has Google's own words, and what helps."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    google.api.refusals += [(status, {"error": {"code": status, "status": code, "message": message}})] * 9
    with pytest.raises(PrebuiltError) as caught:
        GCRRegistry().credentials(NAME)
    assert words in caught.value.remedy
    assert f"{status} {code}: {message}" in caught.value.reason


def test_who_may_not_make_repositories(google: GoogleCloud) -> None:
    """The permission is named, with the command for somebody who may."""
    google.api.denied.add("artifactregistry.repositories.create")
    with pytest.raises(ForbiddenError) as caught:
        GCRRegistry().credentials(NAME)
    for words in (
        "artifactregistry.repositories.create",
        "gcloud artifacts repositories create",
        "CREATE_REPOSITORY=0",
    ):
        assert words in caught.value.remedy


def test_secrets_are_in_no_repr(google: GoogleCloud, identity: Identity) -> None:
    """Neither the token nor the key is shown by accident."""
    token = identity()
    assert isinstance(token, Credentials)
    key = json.loads(Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())["private_key"]
    for shown in (repr(identity), repr(token), repr(GCRRegistry())):
        assert token.secret not in shown
        assert key not in shown


def _another_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption()).decode()
