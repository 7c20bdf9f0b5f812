"""Why a build failed, as Kaniko and registries say it, and what is taken from a Dockerfile."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from prebuilt.core.credentials import Credentials
from prebuilt.kaniko.failure import find_cause
from prebuilt.kaniko.output import KanikoOutput
from prebuilt.kaniko.pod_state import Ended
from prebuilt.oci.docker_config import Login

FAILED = Ended(exit_code=1, reason="Error", message="")


def _remedy(*lines: str) -> str:
    return find_cause(FAILED, lines, host="r.example", memory="4Gi", logins={})[1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            (
                'error checking push permissions -- make sure you entered the correct tag name: checking push permission for "r.example/i:t":'
                " POST https://r.example/v2/i/blobs/uploads/: UNAUTHORIZED: authentication required"
            ),
            "docker login r.example",
        ),
        (
            "error building image: GET https://other.example:5000/v2/b/manifests/1: UNAUTHORIZED",
            "docker login other.example:5000",
        ),
        ("error pushing image: failed to push to destination: DENIED: no", "may push to the repository"),
        (
            "error building image: GET https://r.example/v2/b/manifests/1: MANIFEST_UNKNOWN: manifest unknown",
            "METAFLOW_PREBUILT_BASE_IMAGE",
        ),
        ("Error: error resolving source context: storage: object doesn't exist", "storage.objects.get"),
        ("error building image: GET https://index.docker.io/v2/: TOOMANYREQUESTS: limit", "limits are higher"),
        (
            "error building image: http: server gave HTTP response to HTTPS client",
            "METAFLOW_PREBUILT_INSECURE_REGISTRIES",
        ),
        ("error building image: x509: certificate signed by unknown authority", "METAFLOW_PREBUILT_CA_BUNDLE"),
        ("error building image: dial tcp 10.0.0.1:443: connect: connection refused", "pods of the cluster"),
        ("error building image: write /x: no space left on device", "METAFLOW_PREBUILT_KANIKO_DISK"),
        ("error building image: waiting for process to exit: signal: killed", "more than 4Gi"),
        ("Error: unknown flag: --nonsense", "METAFLOW_PREBUILT_KANIKO_FLAGS"),
        (
            (
                "error pushing image: POST https://1.dkr.ecr.eu-west-1.amazonaws.com/v2/i/blobs/uploads/: DENIED: User:"
                " arn:aws:sts::1:assumed-role/pod/x is not authorized to perform: ecr:InitiateLayerUpload on resource: i"
            ),
            "allow ecr:InitiateLayerUpload",
        ),
    ],
)
def test_known_causes(line: str, words: str) -> None:
    """Each has a remedy, also as the last of many lines."""
    assert words in _remedy("INFO[0000] Retrieving", line)


@pytest.mark.parametrize(("lives_s", "words"), [(-60, "ended at"), (600, "docker login")])
def test_login_that_ended(lives_s: int, words: str) -> None:
    """A token that ended while the image was built is told with its time, and with what gives the pod new ones."""
    expires_at = datetime.now(timezone.utc) + timedelta(seconds=lives_s)
    login = Login.explicit(Credentials(username="oauth2accesstoken", secret="s3cret", expires_at=expires_at))
    line = "error pushing image: POST https://r.example/v2/i/blobs/uploads/: UNAUTHORIZED: no"
    for host in "r.example", "other.example":  # which is that of the base image
        reason, remedy = find_cause(FAILED, (line,), host=host, memory="4Gi", logins={"r.example": login})
        assert reason == line
        assert words in remedy
        assert "METAFLOW_PREBUILT_KANIKO_CREDENTIALS=pod" in remedy
        assert (f"{expires_at:%H:%M} UTC" in remedy) == (lives_s < 0)


def test_container_that_is_lost() -> None:
    """A node that was restarted does not know how Kaniko ended: nobody says that it was for want of memory."""
    said = "The container could not be located when the pod was terminated"
    end = Ended(exit_code=137, reason="ContainerStatusUnknown", message=said)
    reason, remedy = find_cause(end, ("INFO[0000] half way",), host="h", memory="4Gi", logins={})
    assert reason == f"ContainerStatusUnknown: {said}"
    assert remedy.startswith("build again")
    killed = Ended(exit_code=137, reason="Error", message="")
    assert "out of memory" in find_cause(killed, (), host="h", memory="4Gi", logins={})[0]


def test_steps_say_much() -> None:
    """What a step says of passwords is about its package index, and not about the registry; its memory is its memory."""
    assert _remedy("401 Unauthorized for the index", "error building image: exit status 3") == ""
    assert "MEMORY" in _remedy("signal: killed", "error building image: exit status 3")


def test_reason_is_the_last_error() -> None:
    """Kaniko's usage may follow it; a silent Kaniko has its exit code."""
    reason, _ = find_cause(FAILED, ("error one", "error two", "usage"), host="h", memory="m", logins={})
    assert reason == "error two"
    assert find_cause(FAILED, (), host="h", memory="m", logins={})[0] == "it said nothing (exit code 1)"


def test_usage_is_left_out() -> None:
    """The flags that Kaniko lists after an early error are not shown, and do not push the error out; a step's usage is."""
    shown: list[str] = []
    output = KanikoOutput(shown.append)
    listed = ["Usage:", "  executor [flags]", "", "Available Commands:", "  help", "Flags:", *["  --flag"] * 60]
    for line in [
        "Usage:",
        "  of a step",
        "Error: no context",
        *listed,
        'Use "executor [command] --help" for more',
        "end",
    ]:
        output(line)
    assert shown == ["Usage:", "  of a step", "Error: no context", "end"]
    assert output.lines == tuple(shown)
