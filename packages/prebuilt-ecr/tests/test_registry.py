"""The registry ``ecr`` against moto's API and a real registry that takes the passwords that the API gave."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import ForbiddenError, RegistryError
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.plugins import IMAGE_REGISTRIES
from prebuilt.core.spec import EnvId
from prebuilt.ecr import ECRRegistry
from prebuilt.oci.media_types import OCI_INDEX
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.amazon_ecr import ACCOUNT, HOST, REGION, AmazonECR
from prebuilt.testing.conformance import RegistryContract
from prebuilt.testing.registry_store import sha256_digest

ENV_ID = EnvId("1" * 40, "2" * 40, "linux-64")
INDEX = b'{"schemaVersion":2,"manifests":[]}'
OTHER_INDEX = b'{"schemaVersion":2,"manifests":[],"annotations":{}}'
DATA = b"layer"
LAYER = Descriptor(media_type="application/octet-stream", digest=sha256_digest(DATA), size=len(DATA))

pytestmark = pytest.mark.usefixtures("amazon")


class TestECRRegistry(RegistryContract):
    """Every clause of the contract, over TLS, by the real host name."""

    @pytest.fixture
    def new_registry(self) -> type[ImageRegistry]:
        """Give the class."""
        return ECRRegistry

    @pytest.fixture
    def broken_registry(self, monkeypatch: pytest.MonkeyPatch) -> ImageRegistry:
        """Give one whose host refuses connections."""
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        return ECRRegistry()


def opened(registry: ECRRegistry) -> Repository:
    """Return the repository of images, which is there afterwards, as a builder opens it."""
    return open_repository(registry.repository, registry.credentials(registry.image_tag(ENV_ID)))


class TestNames:
    def test_is_found_by_its_name(self) -> None:
        """METAFLOW_PREBUILT_IMAGE_REGISTRY=ecr selects it."""
        assert isinstance(IMAGE_REGISTRIES.get("ecr"), ECRRegistry)

    def test_account_and_region_are_those_of_the_credentials(self, amazon: AmazonECR) -> None:
        """With nothing set, images go to the account of the credentials, in boto3's region; nobody is asked twice."""
        registry = ECRRegistry()
        assert registry.repository == f"{HOST}/metaflow-prebuilt"
        assert registry.image_tag(ENV_ID).startswith(f"{HOST}/metaflow-prebuilt:v1-1111")
        assert len(amazon.passwords.good) == 1

    def test_settings_come_first(self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
        """Account, region and namespace are those of the settings, and AWS is not asked for a name."""
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_ACCOUNT", "210987654321")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_REGION", "cn-north-1")
        monkeypatch.setenv("METAFLOW_PREBUILT_IMAGE_NAMESPACE", "team/flows")
        assert ECRRegistry().repository == "210987654321.dkr.ecr.cn-north-1.amazonaws.com.cn/team/flows"
        assert amazon.passwords.good == set()

    def test_naming_an_image_imports_no_sdk(self) -> None:
        """Neither boto3 nor an HTTP client is imported before somebody is asked."""
        code = (
            "import sys; from prebuilt.ecr import ECRRegistry; from prebuilt.core.spec import EnvId;"
            "ECRRegistry().image_tag(EnvId('1' * 40, '2' * 40, 'linux-64'));"
            "sys.exit(', '.join({'boto3', 'botocore', 'httpx2'} & set(sys.modules)) or 0)"
        )
        settings = {"METAFLOW_PREBUILT_ECR_ACCOUNT": ACCOUNT, "METAFLOW_PREBUILT_ECR_REGION": REGION}
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **settings})

    def test_fips_is_in_the_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """AWS's own switch decides about the registry's name as well."""
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_REGION", "us-east-1")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_ACCOUNT", ACCOUNT)
        assert ECRRegistry().repository.startswith(f"{ACCOUNT}.dkr.ecr-fips.us-east-1.amazonaws.com/")

    def test_outside_builders_get_what_was_published(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """``push_credentials`` has the four keys of release 0.3; CodeBuild's region is the registry's unless it is set."""
        monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET", "contexts")
        expected = {"region": REGION, "codebuild_region": REGION, "s3_bucket": "contexts", "codebuild_project": None}
        assert ECRRegistry().push_credentials() == expected
        monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_REGION", "us-east-1")
        monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_PROJECT", "images")
        published = ECRRegistry().push_credentials()
        assert (published["codebuild_region"], published["codebuild_project"]) == ("us-east-1", "images")


class TestAnswers:
    def test_a_second_deploy_asks_once(self, amazon: AmazonECR) -> None:
        """An image that is there costs one password and one HEAD; other images cost one HEAD each."""
        first = ECRRegistry()
        opened(first).put_manifest(first.image_tag(ENV_ID).rpartition(":")[2], OCI_INDEX, INDEX)
        amazon.registry.forget_requests()
        amazon.passwords.expire_all()
        registry = ECRRegistry()
        for _ in range(3):
            assert registry.resolve(registry.push_tag(ENV_ID)) is not None
        assert [request.method for request in amazon.registry.requests] == ["HEAD"] * 3
        assert len(amazon.passwords.good) == 1

    def test_credentials_open_the_registry(self) -> None:
        """What builders are handed is a password with its end; Docker, buildx and Kaniko take it as it is."""
        credentials = ECRRegistry().credentials(f"{HOST}/metaflow-prebuilt:v1")
        assert credentials.username == "AWS"
        assert credentials.secret not in repr(credentials)
        assert credentials.expires_at is not None
        assert timedelta(hours=11) < credentials.expires_at - datetime.now(timezone.utc) <= timedelta(hours=12)
        assert open_repository(f"{HOST}/metaflow-prebuilt", credentials).resolve("v1") is None

    def test_base_images_of_other_accounts_are_looked_up(self, amazon: AmazonECR) -> None:
        """A password is good for every registry of the region that its owner may use."""
        amazon.client().create_repository(repositoryName="bases")
        repository = open_repository(f"{HOST}/bases", ECRRegistry().credentials_source)
        pushed = repository.put_manifest("1", "application/vnd.oci.image.manifest.v1+json", manifest(repository))
        other = f"210987654321.dkr.ecr.{REGION}.amazonaws.com/bases:1"
        assert ECRRegistry().base_image_identity(other, "linux-64") == pushed.digest

    def test_other_registries_do_not_get_the_password(self, amazon: AmazonECR) -> None:
        """What is not ECR of this region is opened with what Docker's configuration has."""
        registry = ECRRegistry()
        assert registry._login("docker.io/library/python") is None
        assert registry._login(f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/flows") is None
        assert amazon.passwords.good == set()


def manifest(repository: Repository) -> bytes:
    """Push a config; return the manifest of an image that has nothing else."""
    from prebuilt.core.canonical import canonical_json
    from prebuilt.oci.image import ImageManifest
    from prebuilt.oci.media_types import OCI_CONFIG
    from prebuilt.testing.blobs import push_bytes

    config = canonical_json({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}})
    return ImageManifest(config=push_bytes(repository, config, OCI_CONFIG), layers=()).to_bytes()


class TestRepositories:
    def test_a_missing_repository_is_made_by_who_pushes(self, amazon: AmazonECR) -> None:
        """Looking makes nothing; to push makes the repository, with ECR's own defaults."""
        registry = ECRRegistry()
        assert registry.resolve(registry.push_tag(ENV_ID)) is None
        assert amazon.repository("metaflow-prebuilt") is None
        opened(registry).push_blob(LAYER, lambda: io.BytesIO(DATA))
        made = amazon.repository("metaflow-prebuilt")
        assert made is not None
        assert made["imageTagMutability"] == "MUTABLE"
        assert made["imageScanningConfiguration"] == {"scanOnPush": False}
        assert made["encryptionConfiguration"] == {"encryptionType": "AES256"}

    def test_a_new_repository_is_as_the_settings_say(self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
        """Immutable tags, scanning and the key; documents get a repository whose tags move, with the same key."""
        key = amazon.client("kms").create_key()["KeyMetadata"]["Arn"]
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_IMMUTABLE_TAGS", "1")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_SCAN_ON_PUSH", "1")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_ENCRYPTION", "KMS")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_KMS_KEY", key)
        registry = ECRRegistry()
        registry.credentials(registry.push_tag(ENV_ID))
        registry.documents().put("lock-1", b"{}")
        made = [amazon.repository(name) for name in ("metaflow-prebuilt", "metaflow-prebuilt-documents")]
        assert [each and each["imageTagMutability"] for each in made] == ["IMMUTABLE_WITH_EXCLUSION", "MUTABLE"]
        assert [each and each["imageScanningConfiguration"]["scanOnPush"] for each in made] == [True, False]
        assert [each and each["encryptionConfiguration"]["kmsKey"] for each in made] == [key, key]

    def test_eight_deploys_at_once_make_one_repository(self, amazon: AmazonECR) -> None:
        """Who comes second finds it there."""
        registries = [ECRRegistry() for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda registry: registry.credentials(registry.push_tag(ENV_ID)), registries))
        assert amazon.repository("metaflow-prebuilt") is not None

    def test_who_loses_the_race_goes_on(self, amazon: AmazonECR) -> None:
        """A repository that somebody made between looking and making is as good."""
        registry = ECRRegistry()
        for _ in range(2):
            registry._api.create_repository("metaflow-prebuilt", ACCOUNT, holds_images=True)
        assert amazon.repository("metaflow-prebuilt") is not None

    def test_making_can_be_forbidden(self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then nothing is made, and pushing to a repository that is not there says so."""
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_CREATE_REPOSITORY", "0")
        registry = ECRRegistry()
        with pytest.raises(RegistryError, match=rf"NAME_UNKNOWN.*in {REGION}: .*create the repository"):
            opened(registry).push_blob(LAYER, lambda: io.BytesIO(DATA))
        with pytest.raises(RegistryError, match="NAME_UNKNOWN"):
            registry.documents().put("lock-1", b"{}")
        assert amazon.repository("metaflow-prebuilt") is None

    def test_nothing_is_made_in_another_account(self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
        """ECR makes no repository across accounts: what is missing there is an error that says so."""
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_ACCOUNT", "210987654321")
        registry = ECRRegistry()
        with pytest.raises(
            RegistryError, match=r"210987654321.*NAME_UNKNOWN.*the account 210987654321 .*create the repository"
        ):
            opened(registry).push_blob(LAYER, lambda: io.BytesIO(DATA))
        with pytest.raises(RegistryError, match="NAME_UNKNOWN"):
            registry.documents().put("lock-1", b"{}")
        assert amazon.client().describe_repositories()["repositories"] == []

    def test_repositories_of_another_region_are_not_seen(
        self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A repository is looked for in the region of the setting, and made there."""
        amazon.client().create_repository(repositoryName="metaflow-prebuilt")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_REGION", "us-east-1")
        registry = ECRRegistry()
        assert registry._api.has_repository("metaflow-prebuilt", ACCOUNT) is False
        assert registry.repository == f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/metaflow-prebuilt"


class TestImmutableTags:
    @pytest.fixture
    def registry(self, amazon: AmazonECR) -> ECRRegistry:
        """Return a registry whose repository of images was made by an operator, with immutable tags."""
        amazon.client().create_repository(repositoryName="metaflow-prebuilt", imageTagMutability="IMMUTABLE")
        return ECRRegistry()

    def test_documents_move_all_the_same(self, registry: ECRRegistry) -> None:
        """Locks are refreshed and catalogues grow beside images whose tags stay."""
        for data in (b"1", b"2"):
            registry.documents().put("lock-1", data)
            assert ECRRegistry().documents().get("lock-1") == data

    def test_the_same_image_may_be_pushed_twice(self, registry: ECRRegistry) -> None:
        """Two who bake the same at once both succeed."""
        for _ in range(2):
            opened(registry).put_manifest("v1-a", OCI_INDEX, INDEX)

    def test_caches_of_builders_move_in_a_repository_of_ours(
        self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What CodeBuild and buildx keep beside the images is written anew by each build; images are not."""
        monkeypatch.setenv("METAFLOW_PREBUILT_IMAGE_NAMESPACE", "flows")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_IMMUTABLE_TAGS", "1")
        repository = opened(ECRRegistry())
        for tag in ("layers-buildcache", "layers-buildcache-0123", "buildcache", "buildcache-0123"):
            for data in (INDEX, OTHER_INDEX):
                repository.put_manifest(tag, OCI_INDEX, data)
        repository.put_manifest("v1-a", OCI_INDEX, INDEX)
        with pytest.raises(RegistryError, match="TAG_INVALID"):
            repository.put_manifest("v1-a", OCI_INDEX, OTHER_INDEX)

    def test_another_image_is_refused(self, registry: ECRRegistry) -> None:
        """A tag keeps what it was put on."""
        opened(registry).put_manifest("v1-a", OCI_INDEX, INDEX)
        with pytest.raises(RegistryError, match="TAG_INVALID"):
            opened(registry).put_manifest("v1-a", OCI_INDEX, OTHER_INDEX)

    def test_tags_may_be_excluded(self, amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> None:
        """An operator who wants one repository for both excludes the documents' tags from immutability."""
        filters = [{"filterType": "WILDCARD", "filter": f"{kind}-*"} for kind in ("lock", "layers")]
        amazon.client().create_repository(
            repositoryName="flows",
            imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
            imageTagMutabilityExclusionFilters=filters,
        )
        monkeypatch.setenv("METAFLOW_PREBUILT_IMAGE_NAMESPACE", "flows")
        monkeypatch.setenv("METAFLOW_PREBUILT_ECR_DOCUMENTS_REPOSITORY", "flows")
        for data in (b"1", b"2"):
            ECRRegistry().documents().put("lock-1", data)
        repository = opened(ECRRegistry())
        repository.put_manifest("v1-a", OCI_INDEX, INDEX)
        with pytest.raises(RegistryError, match="TAG_INVALID"):
            repository.put_manifest("v1-a", OCI_INDEX, OTHER_INDEX)


@pytest.mark.parametrize(
    ("method", "path", "action", "do"),
    [
        ("HEAD", "manifests", "ecr:BatchGetImage", lambda r: r.resolve("v1")),
        ("GET", "manifests", "ecr:BatchGetImage", lambda r: r.get_manifest("v1")),
        ("PUT", "manifests", "ecr:PutImage", lambda r: r.put_manifest("v1", OCI_INDEX, INDEX)),
        ("HEAD", "blobs", "ecr:BatchCheckLayerAvailability", lambda r: r.has_blob(LAYER.digest)),
        ("POST", "uploads", "ecr:InitiateLayerUpload", lambda r: r.push_blob(LAYER, lambda: io.BytesIO(DATA))),
        ("PUT", "uploads", "ecr:CompleteLayerUpload", lambda r: r.push_blob(LAYER, lambda: io.BytesIO(DATA))),
        ("GET", "blobs", "ecr:GetDownloadUrlForLayer", lambda r: b"".join(read(r))),
    ],
)
def test_a_denied_request_names_its_action(
    amazon: AmazonECR, method: str, path: str, action: str, do: Callable[[Repository], object]
) -> None:
    """Each request that the registry refuses says which IAM action is missing, and that another account has a policy, too."""
    repository = opened(ECRRegistry())
    amazon.registry.fail(method, path, status=403, code="DENIED", times=9)
    with pytest.raises(ForbiddenError) as caught:
        do(repository)
    assert action in caught.value.remedy
    assert "another account's" in caught.value.remedy


def read(repository: Repository) -> list[bytes]:
    """Return the layer's chunks."""
    with repository.open_blob(LAYER) as chunks:
        return list(chunks)
