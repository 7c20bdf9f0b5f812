"""CodeBuild, S3 and CloudWatch for tests: moto's APIs, with builds that the test moves on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.tree import Content
from prebuilt.testing.amazon_codebuild import (
    PROJECT,
    CodeBuilds,
    RemoteBuild,
    codebuild_of_moto,
    create_project,
    succeed,
)
from prebuilt.testing.amazon_ecr import ACCOUNT, REGION, AmazonECR, amazon_ecr
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.plain_request import plain_request
from prebuilt.testing.served import serving
from prebuilt.testing.user_settings import forget_user_settings

BUCKET = "contexts"
REFERENCE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/metaflow-prebuilt:v1-tag"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what users have configured out of the tests."""
    forget_user_settings(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "metaflow"))


@pytest.fixture(scope="session")
def running_amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmazonECR]:
    """One for all tests: moto takes a second to import."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget_user_settings(monkeypatch)
        with amazon_ecr(tmp_path_factory.mktemp("amazon")) as amazon:
            monkeypatch.undo()
            yield amazon


@dataclass(frozen=True)
class Cloud:
    """What an operator has set up, and the builds that run there."""

    amazon: AmazonECR
    builds: CodeBuilds

    def plays(self, host: Callable[[RemoteBuild], None]) -> None:
        """Have `host` move the next builds on."""
        self.builds.host = host

    def client(self, service: str) -> Any:
        """Return a client that may do everything."""
        return self.amazon.client(service)

    def keys(self) -> list[str]:
        """Return the keys of the contexts that are in the bucket."""
        return [each["Key"] for each in self.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    @property
    def build(self) -> RemoteBuild:
        """The one build that was started."""
        (build,) = self.builds.builds
        return build


@pytest.fixture
def cloud(running_amazon: AmazonECR, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A project and a bucket that this process finds, where builds succeed; with credentials that may do everything."""
    running_amazon.reset()
    for name, value in running_amazon.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET", BUCKET)
    monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_PROJECT", PROJECT)
    monkeypatch.setattr("prebuilt.codebuild.run._LOOK_S", 0.02)
    monkeypatch.setattr("prebuilt.codebuild.log._LOOK_S", 0.02)
    monkeypatch.setattr("prebuilt.codebuild.log._SETTLING_S", 0.2)
    place = {"LocationConstraint": REGION}
    running_amazon.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    create_project(running_amazon.client("codebuild"))
    with codebuild_of_moto(succeed) as builds:
        yield Cloud(running_amazon, builds)


class Clock(Cancellation):
    """Time that passes for a build by what it waits, and by nothing else: however slow a machine is, its clock is not late.

    Attributes:
        now_s: The time.
        then: Is called after each wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.then: Callable[[], None] = lambda: None

    def wait(self, timeout_s: float) -> bool:
        """Let `timeout_s` pass, at once."""
        self.now_s += timeout_s
        self.then()
        return super().wait(0.005)  # others have something to do

    def monotonic(self) -> float:
        """Return the time, as the module of the standard library does."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the builder goes by, where it is also the cancellation of its request."""
    clock = Clock()
    monkeypatch.setattr("prebuilt.codebuild.run.time", clock)
    monkeypatch.setattr("prebuilt.codebuild.log.time", clock)
    return clock


@dataclass
class Gate:
    """Stands before moto, and does to some requests what networks and clouds do.

    Attributes:
        url: For ``AWS_ENDPOINT_URL``.
        api_url: Of moto.
        faults: By the name of an operation: what comes of its next requests, one after another: an error's code, with or without
            ``: message``, or ``cut`` for a connection that ends without an answer.
        asked: The operations that came, in order.
    """

    url: str
    api_url: str
    faults: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def breaks(self, operation: str, fault: str, times: int = 1) -> None:
        """Have the next requests fail."""
        self.faults[operation] = [fault] * times


class _GateHandler(BaseHTTPRequestHandler):
    gate: Gate
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def _take(self) -> None:
        operation = self._operation()
        self.gate.asked.append(operation)
        faults = self.gate.faults.get(operation)
        fault = faults.pop(0) if faults else ""
        if fault == "cut":
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, answer = self._refused(fault) if fault else self._passed(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = _take  # noqa: N815 - the names in the standard library

    def _operation(self) -> str:
        target = self.headers.get("X-Amz-Target")
        if target:
            return target.rpartition(".")[2]
        query = urlsplit(self.path).query
        in_parts = {"PUT": "UploadPart", "DELETE": "AbortMultipartUpload", "POST": "CompleteMultipartUpload"}
        if "uploadId" in query:
            return in_parts[self.command]
        whole = {"PUT": "PutObject", "DELETE": "DeleteObject", "POST": "CreateMultipartUpload", "GET": "GetObject"}
        return whole[self.command]

    def _refused(self, fault: str) -> tuple[int, dict[str, str], bytes]:
        code, _, message = fault.partition(": ")
        message = message or "as the test wants it"
        status = 503 if code in {"SlowDown", "InternalFailure"} else 400
        if self.headers.get("X-Amz-Target"):
            return status, {}, json.dumps({"__type": code, "message": message}).encode()
        return status, {}, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

    def _passed(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        address = urlsplit(self.gate.api_url)
        with contextlib.closing(HTTPConnection(address.hostname or "", address.port)) as connection:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            kept = {"etag", "content-type", "location", "x-amzn-requestid"}
            headers = {name: value for name, value in answer.getheaders() if name.lower() in kept}
            return answer.status, headers, answer.read()


@pytest.fixture
def gate(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before the cloud, which lets everything pass until it is told otherwise. Waits between attempts are short."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GateHandler)
    gate = Gate(url=f"http://127.0.0.1:{server.server_port}", api_url=cloud.amazon.api_url)
    server.RequestHandlerClass = type("Handler", (_GateHandler,), {"gate": gate})
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
    with serving(server):
        yield gate


@dataclass
class Heard(RecordingProgress):
    """Progress that remembers what it was told as what."""

    states: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def state(self, text: str) -> None:
        """Take it."""
        super().state(text)
        self.states.append(text)

    def note(self, text: str) -> None:
        """Take it."""
        super().note(text)
        self.notes.append(text)

    def output(self, line: str) -> None:
        """Take it."""
        super().output(line)
        self.lines.append(line)


@pytest.fixture
def heard() -> Heard:
    """Progress of one image."""
    return Heard()


@pytest.fixture
def make_request() -> Callable[..., BuildRequest]:
    """Return what makes requests, with files in the context and other fields of the request."""

    def make(platform: str = "linux/amd64", files: Mapping[str, Content] | None = None, **changes: Any) -> BuildRequest:
        return replace(plain_request(REFERENCE, platform=platform, files=files), **changes)

    return make
