"""Passwords: one for all, replaced before they end and when the registry refuses them, also in the middle of a push."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from prebuilt.core.errors import ForbiddenError
from prebuilt.core.settings import Settings
from prebuilt.ecr.api import ECRApi
from prebuilt.ecr.authorization import AuthorizationSource
from prebuilt.ecr.config import ECRConfig
from prebuilt.ecr.login import find_source
from prebuilt.oci.logins import find_logins
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.amazon_ecr import HOST, REGION, AmazonECR
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.clock import Clock

HOUR_S = 3600.0


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def source(amazon: AmazonECR, clock: Clock) -> AuthorizationSource:
    """Return a source of passwords of the API."""
    amazon.client().create_repository(repositoryName="flows")
    return AuthorizationSource(ECRApi(ECRConfig.from_settings(Settings.load())).authorization, clock)


@pytest.fixture
def repository(source: AuthorizationSource) -> Repository:
    """Return a repository that is opened with it."""
    return open_repository(f"{HOST}/flows", source)


def push(repository: Repository, data: bytes) -> None:
    """Push a blob."""
    assert repository.has_blob(push_bytes(repository, data).digest)


def test_one_password_serves_all(amazon: AmazonECR, source: AuthorizationSource) -> None:
    """Threads that ask at once get the same one, which was fetched once."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: source(), range(32)))
    assert len(found) == len(amazon.passwords.good) == 1


def test_a_password_that_ends_in_the_middle_of_a_push_is_replaced(
    amazon: AmazonECR, repository: Repository, clock: Clock
) -> None:
    """The registry refuses it, another is fetched, and the push goes on where it was."""
    push(repository, b"first layer")
    amazon.passwords.expire_all()
    clock.now_s += 12 * HOUR_S
    push(repository, b"second layer")
    assert len(amazon.passwords.good) == 1


def test_a_password_ends_between_the_requests_of_one_blob(
    amazon: AmazonECR, repository: Repository, clock: Clock
) -> None:
    """An upload that was begun with one password is completed with the next."""
    repository.resolve("v1")
    clock.now_s += 12 * HOUR_S
    amazon.registry.fail("PUT", "uploads", status=403, code="DENIED")
    push(repository, b"layer")
    assert amazon.registry.count("POST", "uploads") == 1


def test_passwords_are_replaced_early(amazon: AmazonECR, source: AuthorizationSource, clock: Clock) -> None:
    """A builder that cannot ask again is handed one that outlasts the longest build that it may do by itself."""
    amazon.passwords.lifetime = timedelta(hours=2, minutes=59)
    first = source()
    clock.now_s += HOUR_S
    amazon.passwords.lifetime = timedelta(hours=12)
    second = source()
    clock.now_s += HOUR_S
    assert first != second == source()


def test_a_young_password_is_not_refused_for_its_age(
    amazon: AmazonECR, repository: Repository, source: AuthorizationSource
) -> None:
    """What is forbidden stays so, and AWS is not asked for another password each time."""
    source()
    amazon.registry.fail("HEAD", "manifests", status=403, times=3)
    for _ in range(3):
        with pytest.raises(ForbiddenError, match="ecr:BatchGetImage"):
            repository.resolve("v1")
    assert len(amazon.passwords.good) == 1


def docker_login(amazon: AmazonECR, home: Path) -> str:
    """Log in as `docker login` does; return the password."""
    password, _ = amazon.passwords.hand_out()
    auth = base64.b64encode(f"AWS:{password}".encode()).decode()
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {HOST: {"auth": auth}}}))
    return password


class TestWhereNobodyGaveCredentials:
    @pytest.fixture(autouse=True)
    def _images(self, amazon: AmazonECR) -> None:
        for name in ("bases", "guarded"):
            amazon.client().create_repository(repositoryName=name)

    def test_images_of_any_account_are_read(self, amazon: AmazonECR) -> None:
        """A base image in somebody's ECR needs no `docker login`, whoever opens it."""
        repository = open_repository(f"210987654321.dkr.ecr.{REGION}.amazonaws.com/bases")
        assert repository.resolve("1") is None
        assert len(amazon.passwords.good) == 1

    def test_a_login_of_docker_comes_first(self, amazon: AmazonECR, tmp_path: Path) -> None:
        """Who has logged in is not second-guessed."""
        password = docker_login(amazon, tmp_path)
        assert open_repository(f"{HOST}/guarded").resolve("1") is None
        assert amazon.passwords.good == {password}

    def test_a_login_of_yesterday_is_replaced(self, amazon: AmazonECR, tmp_path: Path) -> None:
        """What `docker login` kept for longer than 12 hours is refused, and the AWS credentials give what opens the registry."""
        docker_login(amazon, tmp_path)
        amazon.passwords.expire_all()
        assert open_repository(f"{HOST}/bases").resolve("1") is None
        assert len(amazon.passwords.good) == 1

    def test_a_login_of_yesterday_is_told_without_aws_credentials(
        self, amazon: AmazonECR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where nothing replaces it, its age is in the error, which would otherwise be about rights."""
        docker_login(amazon, tmp_path)
        amazon.passwords.expire_all()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(ForbiddenError, match="whose password ends 12 hours after it was made") as caught:
            open_repository(f"{HOST}/bases").get_manifest("1")
        assert f"docker logout {HOST}" in caught.value.remedy

    def test_a_builder_is_not_handed_a_login_of_yesterday(self, amazon: AmazonECR, tmp_path: Path) -> None:
        """Docker, buildx and Kaniko cannot ask for another password: they get one of today, though their file has one."""
        docker_login(amazon, tmp_path)
        amazon.passwords.expire_all()
        for beyond_docker in (False, True):
            found = find_logins([f"{HOST}/bases"], Settings.load(), beyond_docker=beyond_docker)
            assert found[HOST].credentials.secret in amazon.passwords.good

    def test_a_login_is_left_to_docker_without_aws_credentials(
        self, amazon: AmazonECR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who has logged in, and has nothing else, builds as before."""
        password = docker_login(amazon, tmp_path)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        names = [f"{HOST}/bases"]
        assert find_logins(names, Settings.load(), beyond_docker=True) == {}
        assert find_logins(names, Settings.load())[HOST].credentials.secret == password


def test_a_builder_that_was_handed_a_password_gets_another(amazon: AmazonECR, source: AuthorizationSource) -> None:
    """A push that outlasts the password that it was begun with goes on with a new one."""
    repository = open_repository(f"{HOST}/flows", source())
    push(repository, b"first layer")
    amazon.passwords.expire_all()
    push(repository, b"second layer")
    assert len(amazon.passwords.good) == 1


def test_no_other_host_is_ours() -> None:
    """Credentials of AWS are offered to ECR alone."""
    for host in ("docker.io", "public.ecr.aws", f"{HOST}.example.com", "127.0.0.1:5000"):
        assert find_source(host, Settings({}, {})) is None
