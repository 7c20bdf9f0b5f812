"""The builder ``codebuild``: what it asks AWS for, what users see, and that nothing stays."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from prebuilt.codebuild import CodeBuildService
from prebuilt.codebuild.start import BUILDSPEC, buildspec
from prebuilt.codebuild.state import PHASES
from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.errors import BuildError, CancelledError
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.testing.amazon_codebuild import PROJECT, RemoteBuild, succeed
from prebuilt.testing.amazon_ecr import REGION
from prebuilt.testing.waiting import eventually

Make = Callable[..., BuildRequest]


def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_BUILD_SERVICE=codebuild selects it; nothing has to be set for that."""
    assert isinstance(BUILD_SERVICES.get("codebuild"), CodeBuildService)


def test_importing_and_making_it_imports_no_sdk() -> None:
    """A deploy whose images are all there pays nothing for boto3."""
    code = (
        "import sys; from prebuilt.codebuild import CodeBuildService as s; s().dockerfile_build_options();"
        "print([m for m in sys.modules if m.partition('.')[0] in {'boto3', 'botocore', 'httpx2'}])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_builds_from_a_context_in_s3(cloud: Any, heard: Any, make_request: Make) -> None:
    """The build finds its source by the published variables, and the context is a zip with the Dockerfile at its root."""
    seen: dict[str, Any] = {}

    def host(build: RemoteBuild) -> None:
        bucket, _, key = build.asked["sourceLocationOverride"].partition("/")
        body = cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        with zipfile.ZipFile(io.BytesIO(body)) as context:
            seen["files"] = {name: context.read(name) for name in context.namelist()}
        succeed(build)

    cloud.plays(host)
    request = make_request()
    descriptor = CodeBuildService().build(request, heard)
    asked, variables = cloud.build.asked, cloud.build.variables
    assert asked["sourceTypeOverride"] == "S3"
    assert asked["sourceLocationOverride"] == f"contexts/{variables['BUILD_CONTEXT_KEY']}"
    assert variables["IMAGE_TAG"] == request.reference
    assert {each["type"] for each in asked["environmentVariablesOverride"]} == {"PLAINTEXT"}
    assert re.fullmatch(r"metaflow-prebuilt/[0-9a-f]{64}-[0-9a-f-]{36}\.zip", variables["BUILD_CONTEXT_KEY"])
    assert seen["files"]["Dockerfile"].startswith(b"# Image ")
    assert seen["files"]["materialise.pyz"] == b"program"
    assert seen["files"][BUILDSPEC].decode() == buildspec() == asked["buildspecOverride"]
    assert descriptor is not None
    assert (descriptor.digest, descriptor.size) == ("sha256:" + "a" * 64, 782)
    assert cloud.keys() == []


def test_the_link_comes_first_then_the_log(cloud: Any, heard: Any, make_request: Make) -> None:
    """The first that users see of a build is where to look at it; phases are named, and the log's lines follow."""
    CodeBuildService().build(make_request(), heard)
    build_id = cloud.build.data["id"]
    page = f"codesuite/codebuild/123456789012/projects/{PROJECT}/build/{build_id.replace(':', '%3A')}/log"
    assert heard.notes == [f"CodeBuild: https://{REGION}.console.aws.amazon.com/{page}?region={REGION}"]
    assert heard.lines == ["[Container] Entering phase BUILD", "pushed it"]
    assert heard.texts.index(heard.notes[0]) < heard.texts.index("pushed it")


def test_lines_are_shown_while_the_build_runs(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    """Each line is seen within 3 s of its writing, at the pace that users have."""
    monkeypatch.setattr("prebuilt.codebuild.run._LOOK_S", 1.0)
    written: dict[str, float] = {}
    shown: dict[str, float] = {}
    heard.output = lambda line: shown.setdefault(line, clock.now_s)

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        for line in (f"line {number}" for number in range(6)):
            build.write(line)
            written[line] = clock.now_s  # it may have been seen by now
            eventually(lambda line=line: line in shown, every_s=0.005)
        build.end()

    cloud.plays(host)
    CodeBuildService().build(make_request(cancellation=clock), heard)
    assert shown.keys() == written.keys()
    assert max(shown[line] - written[line] for line in written) < 3


def test_phases_are_named(cloud: Any, heard: Any, make_request: Make) -> None:
    """What a build waits for is said in words."""

    def host(build: RemoteBuild) -> None:
        for phase in ("", "QUEUED", "PROVISIONING", "BUILD"):
            if phase:
                build.enter(phase)
            words = f"CodeBuild: {PHASES[phase or 'SUBMITTED']}"
            eventually(lambda words=words: words in heard.states, every_s=0.005)
        build.end()

    cloud.plays(host)
    CodeBuildService().build(make_request(), heard)
    said = list(dict.fromkeys(heard.states))
    assert said == [
        "uploading the context to S3",
        "starting CodeBuild",
        "CodeBuild: submitted",
        "CodeBuild: waiting in the queue",
        "CodeBuild: starting its environment",
        "CodeBuild: building and pushing",
        "CodeBuild: completed",
    ]


@pytest.mark.parametrize(
    ("platform", "environment", "image"),
    [
        ("linux/amd64", "LINUX_CONTAINER", "aws/codebuild/amazonlinux-x86_64-standard:5.0"),
        ("linux/arm64", "ARM_CONTAINER", "aws/codebuild/amazonlinux-aarch64-standard:3.0"),
    ],
)
def test_the_environment_has_the_architecture_of_the_image(
    cloud: Any, heard: Any, make_request: Make, platform: str, environment: str, image: str
) -> None:
    """arm64 images are built on arm64, whatever the project is."""
    CodeBuildService().build(make_request(platform), heard)
    asked = cloud.build.asked
    assert (asked["environmentTypeOverride"], asked["imageOverride"]) == (environment, image)
    assert asked["imagePullCredentialsTypeOverride"] == "CODEBUILD"
    assert asked["privilegedModeOverride"] is True
    assert cloud.build.variables["IMAGE_PLATFORM"] == platform


def test_the_login_is_the_roles_own(cloud: Any, heard: Any, make_request: Make) -> None:
    """No password of a request is a variable; the buildspec is told which registries are Amazon's."""
    from prebuilt.core.credentials import Credentials

    request = make_request(credentials=Credentials(username="AWS", secret="hush-hush"))
    CodeBuildService().build(request, heard)
    assert "hush-hush" not in json.dumps(cloud.build.asked, default=str)
    host = request.reference.partition("/")[0]
    assert cloud.build.variables["ECR_REGISTRIES"] == f"{host}={REGION}"
    assert "REGISTRY_HOST" not in cloud.build.variables


def test_the_registries_of_all_stages_are_logged_in_to(cloud: Any, heard: Any, make_request: Make) -> None:
    """Whose Dockerfile it is, ours or an outside one, where its images are pulled from is logged in to."""
    tools, bases = (f"{account * 12}.dkr.ecr.us-east-1.amazonaws.com" for account in "89")
    dockerfile = f"FROM {tools}/tools AS tools\nFROM {bases}/python:3\nCOPY --from=tools /made /made\n"
    assert CodeBuildService().build_and_push(dockerfile, {}, "r.example/i:t", {}, lambda *_, **__: None)
    assert cloud.build.variables["ECR_REGISTRIES"] == f"{tools}=us-east-1 {bases}=us-east-1"
    request = make_request()
    base = replace(request.spec.base, reference=f"{bases}/python:3", repository=f"{bases}/python")
    CodeBuildService().build(replace(request, spec=replace(request.spec, base=base)), heard)
    assert f"{bases}=us-east-1" in cloud.builds.builds[-1].variables["ECR_REGISTRIES"].split()


def test_eight_builds_at_once_share_no_key(cloud: Any, heard: Any, make_request: Make) -> None:
    """Builds of one and the same context have keys of their own: the first to end does not take it from the others."""
    together = threading.Barrier(8)

    def host(build: RemoteBuild) -> None:
        bucket, _, key = build.asked["sourceLocationOverride"].partition("/")
        place = together.wait(timeout=120)
        time.sleep(place / 20)  # some have ended when others begin to download
        cloud.client("s3").head_object(Bucket=bucket, Key=key)
        succeed(build)

    cloud.plays(host)
    service = CodeBuildService()
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(service.build, make_request(), heard) for _ in range(8)]
        assert all(each.result() is not None for each in done)
    keys = {build.variables["BUILD_CONTEXT_KEY"] for build in cloud.builds.builds}
    assert len(keys) == 8
    assert len({key.rpartition("/")[2][:64] for key in keys}) == 1
    assert cloud.keys() == []


def test_cancelling_stops_the_build(cloud: Any, heard: Any, make_request: Make) -> None:
    """A request that is cancelled ends at once; the build is stopped, and its context deleted."""
    cancellation = Cancellation()

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        cancellation.cancel()
        assert build.is_stopped.wait(30)

    cloud.plays(host)
    with pytest.raises(CancelledError):
        CodeBuildService().build(make_request(cancellation=cancellation), heard)
    assert cloud.build.data["buildStatus"] == "STOPPED"
    assert cloud.keys() == []


def test_ctrl_c_stops_the_build(cloud: Any) -> None:
    """The same for Ctrl-C: a process that gets it stops its build and deletes its context before it ends."""
    code = (
        "import signal; from prebuilt.codebuild import CodeBuildService as service;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # which a shell in the background has switched off
        "service().build_and_push('FROM scratch', {}, 'r.example/i:t', {}, lambda line, **_: print(line, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        build.write("a line")
        assert build.is_stopped.wait(60)

    cloud.plays(host)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "a line\n":
                break
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert "the build was stopped" in said
    assert said.endswith("KeyboardInterrupt\n")
    assert cloud.build.data["buildStatus"] == "STOPPED"
    assert cloud.keys() == []


def test_a_build_that_takes_too_long_is_stopped(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    """Time is up here, too, not only where the build runs: CodeBuild's limit is 5 minutes at least."""
    monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_TIMEOUT", "1")

    def time_is_up() -> None:
        clock.now_s = 2.0 if heard.lines else 0.0

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        build.write("still working")
        assert build.is_stopped.wait(30)

    cloud.plays(host)
    clock.then = time_is_up
    with pytest.raises(BuildError, match=r"longer than 1 s; set METAFLOW_PREBUILT_CODEBUILD_TIMEOUT") as caught:
        CodeBuildService().build(make_request(cancellation=clock), heard)
    assert caught.value.output == ("still working",)
    assert cloud.build.data["buildStatus"] == "STOPPED"
    assert cloud.build.asked["timeoutInMinutesOverride"] == 5
    assert cloud.keys() == []


def test_the_published_form(cloud: Any) -> None:
    """build_and_push builds the same way: text and bytes, any echo, a platform."""
    said: list[str] = []
    files = {"folder/text": "text", "bytes": b"bytes"}
    built = CodeBuildService().build_and_push(
        "FROM scratch",
        files,
        "r.example/i:t",
        {"password": "hush"},
        lambda message, **_: said.append(message),
        "linux/arm64",
    )
    assert built is True
    assert cloud.build.variables["IMAGE_PLATFORM"] == "linux/arm64"
    assert cloud.build.variables["REGISTRY_HOST"] == "r.example"
    assert cloud.build.asked["environmentTypeOverride"] == "ARM_CONTAINER"
    assert "pushed it" in said
    assert "hush" not in json.dumps(cloud.build.asked, default=str)
    assert cloud.keys() == []


def test_the_published_form_says_why_it_failed(cloud: Any) -> None:
    """A build that failed is False, after `echo` was told why."""
    said: list[str] = []
    cloud.plays(lambda build: build.end("FAILED", "exit status 1"))
    assert CodeBuildService().build_and_push("FROM scratch", {}, "r.example/i:t", {}, said.append) is False
    assert "FAILED while submitted: COMMAND_EXECUTION_ERROR: exit status 1" in said[-1]


def test_a_layout_is_refused(cloud: Any, heard: Any, make_request: Make) -> None:
    """A folder of this machine is no registry: nothing is uploaded, and settings are named."""
    with pytest.raises(BuildError, match="METAFLOW_PREBUILT_IMAGE_REGISTRY"):
        CodeBuildService().build(make_request(reference="oci:/folder:tag"), heard)
    assert cloud.builds.builds == []
