"""CodeBuild, S3 and CloudWatch for tests: moto's APIs, with builds that the test moves on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest
from prebuilt.core.dockerfile import PROGRAM, BuildMaterials
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent, Content
from prebuilt.testing.amazon_codebuild import (
    PROJECT,
    CodeBuilds,
    RemoteBuild,
    codebuild_of_moto,
    create_project,
    succeed,
)
from prebuilt.testing.amazon_ecr import ACCOUNT, REGION, AmazonECR, amazon_ecr

BUCKET = "contexts"
REFERENCE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/metaflow-prebuilt:v1-tag"


@pytest.fixture(scope="session")
def running_amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmazonECR]:
    """One for all tests: moto takes a second to import."""
    with amazon_ecr(tmp_path_factory.mktemp("amazon")) as amazon:
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
def cloud(running_amazon: AmazonECR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A project and a bucket that this process finds, where builds succeed; with credentials that may do everything."""
    running_amazon.reset()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in running_amazon.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "metaflow"))
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


@dataclass
class Heard:
    """Progress that remembers what it was told."""

    states: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    everything: list[str] = field(default_factory=list)

    def state(self, text: str) -> None:
        self.states.append(text)
        self.everything.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.everything.append(text)

    def output(self, line: str) -> None:
        self.lines.append(line)
        self.everything.append(line)

    def add_total(self, size_bytes: int) -> None:
        pass

    def advance(self, size_bytes: int) -> None:
        pass

    def done(self, text: str) -> None:
        pass

    def failed(self, text: str) -> None:
        pass


_: type[ImageProgress] = Heard


@pytest.fixture
def heard() -> Heard:
    """Progress of one image."""
    return Heard()


@dataclass(frozen=True)
class Materials:
    """What a build stage needs, as far as a fake needs it."""

    files: Mapping[str, Content]

    @contextlib.contextmanager
    def gather(
        self, spec: ImageSpec, progress: ImageProgress, *, check: Callable[[], None]
    ) -> Iterator[BuildMaterials]:
        """Give a program that is none."""
        yield BuildMaterials(files={PROGRAM: BytesContent(b"program"), **self.files})


@pytest.fixture
def make_request() -> Callable[..., BuildRequest]:
    """Return what makes requests, with other fields of the request."""

    def make(platform: str = "linux/amd64", files: Mapping[str, Content] | None = None, **changes: Any) -> BuildRequest:
        base = BaseImage(
            reference="python:3.11-slim",
            repository="docker.io/library/python",
            digest="sha256:" + "1" * 64,
            platform=Platform.parse(platform),
            layer_count=1,
            glibc="2.36",
            python=BasePython(path="/usr/local/bin/python3", version="3.11.7"),
            index_digest="sha256:" + "2" * 64,
        )
        asked = Requirements(python="3.11.7", target=Target(platform=base.platform), pypi={"one": ""}).on(base)
        wheel = Wheel(
            name="one",
            version="1.0",
            filename="one-1.0-py3-none-any.whl",
            url="https://index.example/one-1.0-py3-none-any.whl",
            sha256="3" * 64,
            size_bytes=1000,
            role="user",
        )
        lock = Lock(
            req_id=asked.req_id,
            target=asked.target,
            python_version="3.11.7",
            python_source="base",
            packages=(wheel,),
            resolved_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
            resolver="this test",
        )
        spec = ImageSpec(lock=lock, base=base)
        request = BuildRequest(spec=spec, plan=plan_layers(spec), reference=REFERENCE, materials=Materials(files or {}))
        return replace(request, **changes)

    return make
