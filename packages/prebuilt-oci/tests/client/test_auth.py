from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import ForbiddenError, RegistryError, UnauthorizedError
from prebuilt.oci import cloud_logins
from prebuilt.oci.auth import Challenge
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.cloud_logins import FindSource
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth

ADA = Credentials(username="ada", secret="secret")
BLOB = Descriptor(media_type="application/octet-stream", digest=f"sha256:{'0' * 64}", size=1)


@pytest.fixture
def basic_registry() -> Iterator[InMemoryRegistry]:
    """A registry where `ada` with password `secret` may do everything, and nobody else anything."""
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"ada": "secret"})) as server:
        yield server


def write_login(home: Path, host: str, **entry: str) -> Path:
    """Log in to `host`, as Docker would."""
    path = home / ".docker" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"auths": {host: entry}}))
    return path


def basic(user: str, password: str) -> str:
    """Return what `auth` of Docker's file holds."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


class TestTokens:
    def test_a_token_is_fetched_once(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], push: Callable
    ) -> None:
        """The first request costs three, each further one costs one, from other objects and threads, too."""
        push(guarded_registry)
        name = guarded_registry.repository("team/app")

        assert open_repository(name).resolve("1") is not None
        assert [r.method for r in guarded_registry.requests] == ["HEAD", "GET", "HEAD"]

        guarded_registry.forget_requests()
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: open_repository(name).resolve("1"), range(8)))
        assert None not in found
        assert guarded_registry.count("HEAD") == guarded_registry.count() == 8

    def test_an_expired_token_is_replaced_unasked(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], push: Callable
    ) -> None:
        """A token that has run out is not shown: two requests, not three."""
        push(guarded_registry)
        guarded_registry.auth.token_lifetime_s = 0.0001
        repository = open_repository(guarded_registry.repository("team/app"))
        with pytest.raises(UnauthorizedError):
            repository.resolve("1")
        guarded_registry.auth.token_lifetime_s = 300
        guarded_registry.forget_requests()

        assert repository.resolve("1") is not None
        assert [r.method for r in guarded_registry.requests] == ["GET", "HEAD"]

    def test_a_revoked_token_is_replaced_when_refused(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], push: Callable
    ) -> None:
        """A 401 in the middle costs a new token, not the deploy."""
        push(guarded_registry)
        repository = open_repository(guarded_registry.repository("team/app"))
        repository.resolve("1")
        guarded_registry.auth.revoke_all()
        guarded_registry.forget_requests()

        assert repository.resolve("1") is not None
        assert [r.method for r in guarded_registry.requests] == ["HEAD", "GET", "HEAD"]

    def test_pushing_asks_for_the_right_to_push(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """Pulling asks for pull alone; a token for pushing serves both afterwards."""
        repository = open_repository(guarded_registry.repository("team/app"), credentials=ADA)
        repository.has_blob(BLOB.digest)
        repository.put_manifest("1", "application/vnd.oci.image.index.v1+json", b'{"manifests":[]}')
        repository.mount_blob(BLOB, guarded_registry.repository("base/python"))
        repository.has_blob(BLOB.digest)

        scopes = [r.path.partition("scope=")[2] for r in guarded_registry.requests if r.path.startswith("/token")]
        assert scopes == [
            "repository%3Ateam%2Fapp%3Apull&account=ada",
            "repository%3Ateam%2Fapp%3Apull%2Cpush&account=ada",
            "repository%3Abase%2Fpython%3Apull&scope=repository%3Ateam%2Fapp%3Apull%2Cpush&account=ada",
        ]

    def test_an_identity_token_is_exchanged(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], home: Path
    ) -> None:
        """What `docker login` keeps as identitytoken is posted to the token service."""
        write_login(home, guarded_registry.host, auth=basic("ada", ""), identitytoken="refresh-me")
        repository = open_repository(guarded_registry.repository("team/app"))

        repository.put_manifest("1", "application/vnd.oci.image.index.v1+json", b'{"manifests":[]}')

        assert guarded_registry.count("POST", "/token") == 1
        assert not any("refresh-me" in r.path for r in guarded_registry.requests)

    def test_a_wrong_password_is_named_without_the_password(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], home: Path
    ) -> None:
        """401 says whose credentials from which file were tried, and never the secret."""
        path = write_login(home, guarded_registry.host, auth=basic("ada", "wr0ng"))

        with pytest.raises(UnauthorizedError) as caught:
            open_repository(guarded_registry.repository("team/app")).resolve("1")

        message = str(caught.value)
        assert f"as user 'ada' from {path}" in message
        assert "incorrect username or password" in message
        assert "wr0ng" not in message
        assert basic("ada", "wr0ng") not in message

    def test_no_credentials_are_said_to_be_none(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """401 without a login says so, and what to run."""
        repository = open_repository(guarded_registry.repository("team/app"))

        with pytest.raises(UnauthorizedError, match=r"anonymously.*docker login 127\.0\.0\.1"):
            repository.put_manifest("1", "application/vnd.oci.image.index.v1+json", b'{"manifests":[]}')

    def test_a_token_service_without_a_token_is_an_error(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """An answer that has no token is named as that."""
        guarded_registry.fail("GET", "/token", status=200)

        with pytest.raises(RegistryError, match="no token"):
            open_repository(guarded_registry.repository("team/app")).resolve("1")

    def test_a_token_service_that_fails_in_passing_is_asked_again(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], push: Callable
    ) -> None:
        """503 of the token service is tried again."""
        push(guarded_registry)
        guarded_registry.fail("GET", "/token", status=503)

        assert open_repository(guarded_registry.repository("team/app")).resolve("1") is not None

    def test_a_token_service_off_tls_is_not_told_the_password(
        self, registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """A challenge that names a plain HTTP address elsewhere is refused before anything is sent there."""
        challenge = 'Bearer realm="http://tokens.example.org/",service="x"'
        registry.fail("HEAD", "manifests", status=401, headers={"WWW-Authenticate": challenge})

        with pytest.raises(RegistryError, match="not an https address"):
            open_repository(registry.repository("team/app"), credentials=ADA).resolve("1")


class TestBasic:
    def test_credentials_are_sent_once_asked_for(
        self, basic_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository], push: Callable
    ) -> None:
        """The first request costs two, each further one costs one."""
        push(basic_registry)
        repository = open_repository(basic_registry.repository("team/app"), credentials=ADA)

        assert repository.resolve("1") is not None
        assert repository.resolve("1") is not None
        assert [r.status for r in basic_registry.requests] == [401, 200, 200]

    @pytest.mark.parametrize("credentials", [None, Credentials(username="ada", secret="wr0ng")])
    def test_refused_credentials_are_an_error(
        self,
        basic_registry: InMemoryRegistry,
        open_repository: Callable[..., RegistryRepository],
        credentials: Credentials | None,
    ) -> None:
        """401 stays 401."""
        with pytest.raises(UnauthorizedError) as caught:
            open_repository(basic_registry.repository("team/app"), credentials=credentials).resolve("1")
        assert caught.value.status == 401
        assert "wr0ng" not in str(caught.value)

    def test_a_credential_helper_is_asked(
        self,
        basic_registry: InMemoryRegistry,
        open_repository: Callable[..., RegistryRepository],
        home: Path,
        push: Callable,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A helper in Docker's configuration is run, and what it says is used."""
        push(basic_registry)
        answer = json.dumps({"ServerURL": basic_registry.host, "Username": "ada", "Secret": "secret"})
        helper = home / "docker-credential-mine"
        helper.write_text(f"#!/bin/sh\necho '{answer}'\n")
        helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(home), prepend=":")
        config = home / ".docker" / "config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"credHelpers": {basic_registry.host: "mine"}}))

        assert open_repository(basic_registry.repository("team/app")).resolve("1") is not None


def test_challenges_are_read() -> None:
    """Several schemes in one header, quoted commas, other orders and cases."""
    header = (
        'Negotiate, Bearer service="a, b",realm="https://t.example/token",scope="repository:x:pull,push", basic realm=x'
    )

    assert Challenge.parse_all([header]) == [
        Challenge(scheme="bearer", realm="https://t.example/token", service="a, b", scope="repository:x:pull,push"),
        Challenge(scheme="basic", realm="x"),
    ]
    assert Challenge.parse_all([]) == []


class Source:
    """Credentials that end: the passwords of a list, each until it is refused; the first is good for `lifetime`."""

    def __init__(self, *passwords: str, lifetime: timedelta = timedelta(hours=12)) -> None:
        self.rejected: list[Credentials] = []
        lifetimes = [lifetime, *(timedelta(hours=12) for _ in passwords[1:])]
        self._given = [
            Credentials(username="ada", secret=password, expires_at=datetime.now(timezone.utc) + good_for)
            for password, good_for in zip(passwords, lifetimes, strict=True)
        ]

    def __call__(self, rejected: Credentials | None = None) -> Credentials:
        """Give the first that was not refused; the last one stays."""
        if rejected is not None:
            self.rejected.append(rejected)
            del self._given[: 1 if len(self._given) > 1 else 0]
        return self._given[0]


class TestRenewal:
    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_credentials_are_replaced_in_the_middle_of_a_push(
        self, status: int, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """Credentials that end while a blob is pushed are asked for anew, and the push goes on; 403 is Amazon's answer to them."""
        users = {"ada": "first"}
        with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users=users, refuses_with=status)) as server:
            source, data = Source("first", "second"), b"layer"
            repository = open_repository(server.repository("team/app"), credentials=source)
            assert repository.resolve("1") is None
            users["ada"] = "second"
            assert repository.has_blob(push_bytes(repository, data).digest)
        assert [credentials.secret for credentials in source.rejected] == ["first"]

    def test_credentials_are_replaced_before_they_expire(
        self, basic_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """Those that have minutes left are not shown; their successors are, for as long as they are good."""
        source = Source("ending", "secret", lifetime=timedelta(minutes=4))
        repository = open_repository(basic_registry.repository("team/app"), credentials=source)
        for _ in range(3):
            assert repository.resolve("1") is None
        assert [credentials.secret for credentials in source.rejected] == ["ending"]
        assert basic_registry.count() == 4

    def test_a_source_that_has_no_others_is_believed(
        self, open_repository: Callable[..., RegistryRepository], waits_s: list[float]
    ) -> None:
        """Where the source gives the same again, the refusal is the answer; nothing is sent a third time."""
        auth = RegistryAuth(scheme="basic", users={"ada": "other"}, refuses_with=403)
        with InMemoryRegistry(auth=auth) as server, pytest.raises(ForbiddenError):
            open_repository(server.repository("team/app"), credentials=Source("wrong")).resolve("1")
        assert server.count() == 2
        assert waits_s == []

    def test_a_source_that_always_has_others_is_asked_once(
        self, guarded_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """Where a token service takes none of them, the second refusal is the answer."""
        source = Source("one", "two", "three", "four")
        with pytest.raises(UnauthorizedError):
            open_repository(guarded_registry.repository("team/app"), credentials=source).resolve("1")
        assert [credentials.secret for credentials in source.rejected] == ["one"]

    def test_threads_renew_once(
        self, basic_registry: InMemoryRegistry, open_repository: Callable[..., RegistryRepository]
    ) -> None:
        """Requests under way that are all refused make one renewal."""
        source = Source("secret", "renewed", "too many")
        repository = open_repository(basic_registry.repository("team/app"), credentials=source)
        repository.resolve("1")
        basic_registry.auth.users = {"ada": "renewed"}
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: repository.resolve("1"), range(16))) == {None}
        assert len(source.rejected) == 1


class TestCloudLogins:
    @pytest.fixture
    def offered(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Install a package that has the credentials of `ada` for every host; return the hosts that it was asked for."""
        asked: list[str] = []

        class Point:
            @staticmethod
            def load() -> FindSource:
                """Give the package's function."""
                return lambda host, _: asked.append(host) or Source("secret", "renewed")

        monkeypatch.setattr(cloud_logins, "_installed", lambda: (Point,))
        return asked

    def test_an_installed_package_logs_in(
        self,
        basic_registry: InMemoryRegistry,
        open_repository: Callable[..., RegistryRepository],
        offered: list[str],
    ) -> None:
        """Where nobody has logged in, a package for the registry's cloud is asked, once."""
        repository = open_repository(basic_registry.repository("team/cloud"))
        for _ in range(2):
            assert repository.resolve("1") is None
        assert offered == [basic_registry.host]

    def test_it_is_asked_last(
        self,
        basic_registry: InMemoryRegistry,
        open_repository: Callable[..., RegistryRepository],
        home: Path,
        offered: list[str],
    ) -> None:
        """A login of Docker's, and what a caller gives for good, come before it."""
        write_login(home, basic_registry.host, auth=basic("ada", "secret"))
        assert open_repository(basic_registry.repository("team/logged-in")).resolve("1") is None
        assert open_repository(basic_registry.repository("team/given"), credentials=ADA).resolve("1") is None
        assert offered == []

    def test_it_renews_what_was_given_with_an_end(
        self,
        basic_registry: InMemoryRegistry,
        open_repository: Callable[..., RegistryRepository],
        offered: list[str],
    ) -> None:
        """Credentials that end have come from a cloud; when they are refused its package gives others."""
        ended = Credentials(username="ada", secret="ended", expires_at=datetime.now(timezone.utc) + timedelta(hours=1))
        basic_registry.auth.users = {"ada": "renewed"}
        assert open_repository(basic_registry.repository("team/ended"), credentials=ended).resolve("1") is None
        assert offered == [basic_registry.host]
