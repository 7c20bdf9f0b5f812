"""What goes wrong, by name: each error says what to do, each denial names its IAM action, and nothing stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from prebuilt.codebuild import CodeBuildService
from prebuilt.codebuild.failure import AmazonError
from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.errors import BuildError, CancelledError, SettingError
from prebuilt.core.tree import BytesContent
from prebuilt.testing.amazon_codebuild import RemoteBuild, succeed
from prebuilt.testing.amazon_ecr import ACCOUNT, REGION
from prebuilt.testing.waiting import eventually, eventually_gone

Make = Callable[..., BuildRequest]

NEEDED = {"s3:PutObject", "s3:DeleteObject", "codebuild:StartBuild", "codebuild:BatchGetBuilds", "logs:GetLogEvents"}
WHEN_STOPPED = {"codebuild:StopBuild", "s3:AbortMultipartUpload"}
LARGE = {"large": BytesContent(bytes(11 << 20))}


def may(cloud: Any, monkeypatch: pytest.MonkeyPatch, *actions: str) -> None:
    """Have this process be somebody who may do `actions` and nothing else."""
    for name, value in cloud.amazon.user(*actions).items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def parts_of_five_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload in parts as small as S3 takes them."""
    monkeypatch.setattr("prebuilt.codebuild.upload._PART_BYTES", 5 << 20)


def runs_until_stopped(build: RemoteBuild) -> None:
    """Play a build that never ends by itself."""
    build.enter("BUILD")
    build.write("working")
    build.is_stopped.wait(20)


@pytest.mark.parametrize("action", ["s3:PutObject", "codebuild:StartBuild", "codebuild:BatchGetBuilds"])
def test_each_missing_permission_is_named(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Whoever deploys is told which action to allow."""
    may(cloud, monkeypatch, *((NEEDED | WHEN_STOPPED) - {action}))
    with pytest.raises(AmazonError) as caught:
        CodeBuildService().build(make_request(), heard)
    assert f"allow {action} to whoever deploys" in caught.value.remedy
    assert [note for note in heard.notes if "allow" in note] == []


@pytest.mark.parametrize(
    ("operation", "action"),
    [("PutObject", "kms:GenerateDataKey"), ("UploadPart", "kms:GenerateDataKey"), ("UploadPart", "kms:Decrypt")],
)
def test_a_key_that_may_not_be_used_is_named(
    gate: Any, cloud: Any, heard: Any, make_request: Make, operation: str, action: str
) -> None:
    """Where the bucket has a key, an upload needs actions of KMS as well: AWS says which, and so does the error."""
    denied = f"AccessDenied: User: x is not authorized to perform: {action} on resource: y"
    gate.breaks(operation, denied, times=9)
    with pytest.raises(AmazonError, match=f"allow {action} to whoever deploys"):
        CodeBuildService().build(make_request(files=LARGE if operation == "UploadPart" else None), heard)
    assert cloud.keys() == []


def test_a_look_at_a_log_is_brief(cloud: Any) -> None:
    """CloudWatch that hangs keeps nobody from looking at the build: it is asked once at a time, for seconds."""
    from prebuilt.codebuild.amazon import Amazon

    clients = Amazon().clients(None)
    brief, patient = clients.logs.meta.config, clients.codebuild.meta.config
    assert brief.retries["total_max_attempts"] == 1
    assert brief.connect_timeout + brief.read_timeout < 10
    assert patient.retries["total_max_attempts"] > 1
    assert brief.user_agent_extra == patient.user_agent_extra


@pytest.mark.parametrize("action", ["s3:DeleteObject", "logs:GetLogEvents"])
def test_what_no_image_depends_on_is_a_note(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Who may not read logs, or delete contexts, has the image nevertheless, and is told once."""

    def host(build: RemoteBuild) -> None:
        build.write("a line")
        time.sleep(0.3)  # for several looks at the log
        succeed(build)

    cloud.plays(host)
    may(cloud, monkeypatch, *(NEEDED - {action}))
    assert CodeBuildService().build(make_request(), heard) is not None
    (note,) = [note for note in heard.notes if "allow" in note]
    assert f"allow {action} to whoever deploys" in note


def test_who_may_not_stop_builds_is_told_that_it_goes_on(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation is what ends the deploy; that the build goes on is said, with the action to allow."""
    may(cloud, monkeypatch, *NEEDED)
    cancellation = Cancellation()

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        cancellation.cancel()
        build.is_stopped.wait(0.5)

    cloud.plays(host)
    with pytest.raises(CancelledError):
        CodeBuildService().build(make_request(cancellation=cancellation), heard)
    assert "the build goes on" in heard.notes[-1]
    assert "allow codebuild:StopBuild" in heard.notes[-1]


def test_who_may_not_abort_uploads_is_told_what_stays(
    gate: Any, cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is why the upload failed; parts that stay are a note."""
    may(cloud, monkeypatch, *NEEDED)
    gate.breaks("UploadPart", "AccessDenied")
    with pytest.raises(AmazonError, match="allow s3:PutObject"):
        CodeBuildService().build(make_request(files=LARGE), heard)
    assert "AbortMultipartUpload" in gate.asked
    assert "allow s3:AbortMultipartUpload" in heard.notes[-1]


def test_a_missing_bucket(cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket and its setting are named; no build is started."""
    monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET", "no-such-bucket")
    with pytest.raises(
        AmazonError, match=r"s3://no-such-bucket.*NoSuchBucket.*create the bucket.*_CODEBUILD_S3_BUCKET"
    ):
        CodeBuildService().build(make_request(), heard)
    assert cloud.builds.builds == []


def test_a_missing_project(cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project, its region and its setting are named, and the context is deleted."""
    monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_PROJECT", "nothing")
    words = rf"project nothing in {REGION}.*create the project.*METAFLOW_PREBUILT_CODEBUILD_PROJECT"
    with pytest.raises(AmazonError, match=words):
        CodeBuildService().build(make_request(), heard)
    assert cloud.keys() == []


def test_a_project_in_another_region(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for where it is not, it is missing; the error has the region, and the setting for it."""
    monkeypatch.setenv("METAFLOW_PREBUILT_CODEBUILD_REGION", "us-east-1")
    words = r"metaflow-prebuilt in us-east-1.*or correct .*METAFLOW_PREBUILT_CODEBUILD_REGION"
    with pytest.raises(AmazonError, match=words):
        CodeBuildService().build(make_request(), heard)
    assert cloud.keys() == []


@pytest.mark.parametrize("fault", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
def test_a_bucket_in_another_region(gate: Any, cloud: Any, heard: Any, make_request: Make, fault: str) -> None:
    """S3 says so in several ways; the error names both settings, and no build starts."""
    gate.breaks("PutObject", fault, times=10)
    words = "another region than the builds: correct METAFLOW_PREBUILT_CODEBUILD_S3_BUCKET or .*_REGION"
    with pytest.raises(AmazonError, match=words):
        CodeBuildService().build(make_request(), heard)
    assert cloud.builds.builds == []


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Cannot use privileged mode with Lambda compute", "AWS Lambda cannot"),
        (
            "Compute type BUILD_GENERAL1_2XLARGE is not valid for environment type ARM_CONTAINER",
            "_CODEBUILD_COMPUTE_TYPE",
        ),
        ("Cannot override environment type of a project that uses a fleet", "to project for the project's own"),
        ("Invalid project source: type CODEPIPELINE", "take the source and its version out of the project"),
        ("CodeBuild is not authorized to perform: sts:AssumeRole on service role", "trust policy"),
    ],
)
def test_a_project_that_cannot_run_such_builds(
    gate: Any, cloud: Any, heard: Any, make_request: Make, message: str, words: str
) -> None:
    """What of the project, or of the settings, has to be another is said; nothing stays."""
    gate.breaks("StartBuild", f"InvalidInputException: {message}")
    with pytest.raises(AmazonError, match=words):
        CodeBuildService().build(make_request(), heard)
    assert cloud.keys() == []


@pytest.mark.parametrize("name", ["S3_BUCKET", "PROJECT"])
def test_what_has_to_be_set(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Bucket and project have no defaults."""
    monkeypatch.delenv(f"METAFLOW_PREBUILT_CODEBUILD_{name}")
    with pytest.raises(SettingError, match=f"METAFLOW_PREBUILT_CODEBUILD_{name}"):
        CodeBuildService().build(make_request(), heard)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            "FAILED",
            "it ended as FAILED while building and pushing: COMMAND_EXECUTION_ERROR: exit status 1; see what it said",
        ),
        ("FAULT", "it ended as FAULT.*deploy again"),
        ("STOPPED", "it ended as STOPPED.*somebody stopped it"),
        ("TIMED_OUT", "it ended as TIMED_OUT.*METAFLOW_PREBUILT_CODEBUILD_TIMEOUT"),
    ],
)
def test_a_build_that_does_not_succeed(cloud: Any, heard: Any, make_request: Make, status: str, words: str) -> None:
    """How it ended, in which phase, and why are in the error, and so is the end of its log; the context is deleted."""

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        build.write(*(f"line {number}" for number in range(200)))
        build.end(status, "exit status 1")

    cloud.plays(host)
    with pytest.raises(BuildError, match=words) as caught:
        CodeBuildService().build(make_request(), heard)
    assert caught.value.output[-1] == "line 199"
    assert len(caught.value.output) == 50
    assert "line 199" in str(caught.value)
    assert cloud.keys() == []


def test_the_last_lines_are_waited_for(cloud: Any, heard: Any, make_request: Make, clock: Any) -> None:
    """CloudWatch may show what a build said last only after it has failed."""

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        build.write("an early line")
        build.end("FAILED")

    def show_late() -> None:
        if "an early line" in heard.lines and cloud.build.data["buildComplete"] and "why it failed" not in heard.lines:
            cloud.build.write("why it failed")

    cloud.plays(host)
    clock.then = show_late
    with pytest.raises(BuildError, match="why it failed"):
        CodeBuildService().build(make_request(cancellation=clock), heard)


def test_a_log_that_is_deleted(cloud: Any, heard: Any, make_request: Make) -> None:
    """A log group that goes away while it is read fails no build; one note says which."""

    def host(build: RemoteBuild) -> None:
        build.enter("BUILD")
        build.write("a line")
        eventually(lambda: "a line" in heard.lines)
        cloud.client("logs").delete_log_group(logGroupName="/aws/codebuild/metaflow-prebuilt")
        time.sleep(0.3)
        build.end()

    cloud.plays(host)
    CodeBuildService().build(make_request(), heard)
    (note,) = [note for note in heard.notes if "log is gone" in note]
    assert "/aws/codebuild/metaflow-prebuilt" in note


def test_a_project_that_keeps_no_log(cloud: Any, heard: Any, make_request: Make) -> None:
    """One note says that there is none, and which permission its role may lack."""
    cloud.plays(lambda build: build.end())
    assert CodeBuildService().build(make_request(), heard) is None
    assert "logs:PutLogEvents" in heard.notes[-1]


@pytest.mark.parametrize(("operation", "files", "parts"), [("UploadPart", LARGE, 3), ("PutObject", None, 1)])
def test_an_upload_that_is_cut_off_is_tried_again(
    gate: Any, cloud: Any, heard: Any, make_request: Make, operation: str, files: Any, parts: int
) -> None:
    """A connection that ends in mid-upload costs time, and no more; only what was cut off is sent again."""
    gate.breaks(operation, "cut", times=2)
    assert CodeBuildService().build(make_request(files=files), heard) is not None
    assert gate.asked.count(operation) == parts + 2
    assert gate.asked.count("CompleteMultipartUpload") == (operation == "UploadPart")
    assert cloud.keys() == []


def test_an_upload_that_stays_cut_off_is_given_up(gate: Any, cloud: Any, heard: Any, make_request: Make) -> None:
    """No part of it stays in the bucket, no build starts, and the error names the bucket."""
    gate.breaks("UploadPart", "cut", times=100)
    with pytest.raises(AmazonError, match=r"upload a build context at s3://contexts.*the network"):
        CodeBuildService().build(make_request(files=LARGE), heard)
    assert "AbortMultipartUpload" in gate.asked
    assert cloud.client("s3").list_multipart_uploads(Bucket="contexts").get("Uploads", []) == []
    assert cloud.builds.builds == []


def test_an_upload_is_given_up_when_it_is_cancelled(gate: Any, cloud: Any, heard: Any, make_request: Make) -> None:
    """Between two parts the cancellation is seen."""
    cancellation = Cancellation()
    heard.advance = lambda size_bytes: cancellation.cancel()
    with pytest.raises(CancelledError):
        CodeBuildService().build(make_request(files=LARGE, cancellation=cancellation), heard)
    assert gate.asked.count("UploadPart") == 1
    assert "AbortMultipartUpload" in gate.asked


@pytest.mark.parametrize("fault", ["ThrottlingException", "InternalFailure", "cut"])
def test_starting_is_tried_again_and_starts_one_build(
    gate: Any, cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Throttling and transient errors pass, and the token of the call keeps it to one build."""
    monkeypatch.setattr("prebuilt.codebuild.run.Backoff.waits_s", lambda _: iter([0.01] * 5))
    gate.breaks("StartBuild", fault, times=5)
    assert CodeBuildService().build(make_request(), heard) is not None
    assert gate.asked.count("StartBuild") == 6
    assert len(cloud.builds.builds) == 1


@pytest.mark.parametrize("operation", ["BatchGetBuilds", "GetLogEvents"])
@pytest.mark.parametrize("fault", ["ThrottlingException", "InternalFailure", "cut"])
def test_a_build_is_followed_through_transient_errors(
    gate: Any, cloud: Any, heard: Any, make_request: Make, operation: str, fault: str
) -> None:
    """An API that does not answer for a while ends nothing: the build goes on, and so does its log."""
    gate.breaks(operation, fault, times=8)

    def host(build: RemoteBuild) -> None:
        def go_on() -> object:
            build.write("a line")
            return gate.faults[operation]

        build.enter("BUILD")
        eventually_gone(go_on, every_s=0.05)
        build.write("the last line")
        build.end()

    cloud.plays(host)
    CodeBuildService().build(make_request(), heard)
    assert heard.lines[-1] == "the last line"
    assert len([note for note in heard.notes if "does not answer" in note]) == (operation == "BatchGetBuilds")


def test_an_api_that_does_not_come_back(
    gate: Any, cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience has an end: the deploy fails, and the build is stopped."""
    monkeypatch.setattr("prebuilt.codebuild.run._PATIENCE_S", 0.2)
    cloud.plays(runs_until_stopped)
    gate.breaks("BatchGetBuilds", "InternalFailure", times=10_000)
    with pytest.raises(AmazonError, match="InternalFailure"):
        CodeBuildService().build(make_request(), heard)
    assert cloud.build.data["buildStatus"] == "STOPPED"
    assert cloud.keys() == []


@pytest.mark.parametrize("operation", ["PutObject", "StartBuild", "BatchGetBuilds"])
def test_credentials_that_have_expired(gate: Any, cloud: Any, heard: Any, make_request: Make, operation: str) -> None:
    """Whenever it happens, the error says how to log in."""
    cloud.plays(runs_until_stopped)
    gate.breaks(operation, "ExpiredToken" if operation == "PutObject" else "ExpiredTokenException", times=10)
    with pytest.raises(AmazonError, match=r"session has expired.*aws sso login"):
        CodeBuildService().build(make_request(), heard)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccountLimitExceededException", "more concurrent builds"),
        ("UnrecognizedClientException", "check the AWS credentials"),
        ("InvalidSignatureException", "this machine's clock"),
        ("ThrottlingException", "higher rate of codebuild:StartBuild"),
        ("InvalidInputException", "as the test wants it"),
    ],
)
def test_a_refusal_says_what_to_do(
    gate: Any, cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    """The error has AWS's code and its message, and the remedy for it."""
    monkeypatch.setattr("prebuilt.codebuild.run.Backoff.waits_s", lambda _: iter(()))
    gate.breaks("StartBuild", code, times=10)
    with pytest.raises(AmazonError, match=words) as caught:
        CodeBuildService().build(make_request(), heard)
    assert caught.value.failure.code == code
    assert cloud.keys() == []


def test_no_credentials(cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where boto3 looks."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(AmazonError, match="aws sso login"):
        CodeBuildService().build(make_request(), heard)


def test_an_unknown_profile(cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile is named."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingError, match=r"AWS_PROFILE.*nobody"):
        CodeBuildService().build(make_request(), heard)


def test_no_region(cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that is not Amazon's says nothing about the region: the ways to name one are named."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_CODEBUILD_REGION or AWS_DEFAULT_REGION"):
        CodeBuildService().build(make_request(reference="registry.example/team/image:tag"), heard)


def test_the_region_is_that_of_the_registry(
    cloud: Any, heard: Any, make_request: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none is set, builds run where images are kept, as outside builders were promised."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    reference = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/metaflow-prebuilt:tag"
    assert CodeBuildService().build(make_request(reference=reference), heard) is not None
    assert f":{REGION}:" in cloud.build.data["arn"]


@pytest.mark.parametrize(
    ("exported", "words"),
    [
        ({"IMAGE_DIGEST": "sha256:short", "IMAGE_MEDIA_TYPE": "x/y", "IMAGE_SIZE": "1"}, "64 lower-case hex digits"),
        ({"IMAGE_DIGEST": "sha256:" + "a" * 64, "IMAGE_MEDIA_TYPE": "x/y", "IMAGE_SIZE": "one"}, "no number"),
    ],
)
def test_a_digest_that_is_none(
    cloud: Any, heard: Any, make_request: Make, exported: dict[str, str], words: str
) -> None:
    """What a project's own buildspec hands back is looked at before it is believed."""

    def host(build: RemoteBuild) -> None:
        build.export(**exported)
        build.end()

    cloud.plays(host)
    with pytest.raises(BuildError, match=words):
        CodeBuildService().build(make_request(), heard)


def test_a_build_that_vanishes(cloud: Any, heard: Any, make_request: Make) -> None:
    """A build that CodeBuild does not know any more is an error, not an endless wait."""
    cloud.plays(lambda build: cloud.builds.builds.clear())
    with pytest.raises(BuildError, match="does not know it any more"):
        CodeBuildService().build(make_request(), heard)
    assert [note for note in heard.notes if "goes on" in note or "was stopped" in note] == []
