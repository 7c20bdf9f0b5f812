"""What errors make of the messages of engines and registries: each of these was seen, or is in an engine's source."""

from __future__ import annotations

import pytest
from docker.errors import APIError

from prebuilt.core.errors import (
    BuildError,
    ForbiddenError,
    PrebuiltError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    UnauthorizedError,
)
from prebuilt.docker.failures import answer_of, build_failure, cut_off, is_passing, push_failure
from prebuilt.oci.pulled_image import PulledImage

AT = "registry.example:5000/team/image:tag"


@pytest.mark.parametrize(
    ("message", "reason", "remedy"),
    [
        (
            "failed to solve: write /var/lib/docker/overlay2/x: no space left on device",
            "the engine's disk is full",
            "docker system prune",
        ),
        (
            "toomanyrequests: You have reached your unauthenticated pull rate limit.",
            "the registry of the base image limits pulls",
            "docker login",
        ),
        (
            "pull access denied for team/base, repository does not exist or may require 'docker login'",
            "did not let the engine pull it",
            "docker login HOST",
        ),
        (
            "manifest for registry:5000/base:nope not found: manifest unknown: manifest unknown",
            "the base image is not there",
            "METAFLOW_PREBUILT_BASE_IMAGE",
        ),
        (
            "failed to resolve source metadata for host/base@sha256:0: no match for platform in manifest: not found",
            "does not exist for the engine's own platform",
            "METAFLOW_PREBUILT_BUILD_IMAGE",
        ),
        (
            "no matching manifest for linux/amd64 in the manifest list entries",
            "does not exist for the engine's own platform",
            "METAFLOW_PREBUILT_BUILD_IMAGE",
        ),
        (
            "base:nope: failed to resolve source metadata for base:nope: base:nope: not found",
            "the base image is not there",
            "METAFLOW_PREBUILT_BASE_IMAGE",
        ),
        (
            'Get "https://192.168.1.2:5000/v2/": http: server gave HTTP response to HTTPS client',
            "speaks plain HTTP",
            "insecure-registries",
        ),
        (
            "x509: certificate signed by unknown authority",
            "does not trust a certificate",
            "/etc/docker/certs.d",
        ),
        (
            "[Errno -3] Temporary failure in name resolution",
            "has no network",
            "METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK=host",
        ),
        ("exec /usr/local/bin/python3: exec format error", "another architecture", "native"),
        ("Cannot connect to the Docker daemon at unix:///x.", "the engine stopped answering", "log"),
    ],
)
def test_builds(message: str, reason: str, remedy: str) -> None:
    """A known failure is explained, with its message and what to do."""
    error = build_failure(AT, message)
    assert isinstance(error, BuildError)
    assert reason in error.reason
    assert remedy in error.remedy
    assert message in str(error)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("#9 0.2 OSError: [Errno 28] No space left on device", "the engine's disk is full (exit code: 1)"),
        ("#9 0.2 [Errno -3] Temporary failure in name resolution", "has no network"),
        ("#9 0.2 exec /bin/sh: exec format error", "another architecture"),
        ("#9 0.2 401 Unauthorized for https://index.example/simple", "exit code: 1"),
        ("#9 0.2 429 Too Many Requests from https://index.example/simple", "exit code: 1"),
    ],
)
def test_what_steps_say_is_theirs(said: str, reason: str) -> None:
    """A full disk is the engine's wherever it is met; a package index that refuses is not taken for the base's registry."""
    error = build_failure(AT, "exit code: 1", ["one", said])
    assert reason in error.reason
    assert "registry" not in error.reason
    assert said in str(error)


@pytest.mark.parametrize(
    ("message", "reason", "remedy"),
    [
        ("toomanyrequests: You have reached your pull rate limit", "limits pulls", "docker login docker.io), or set"),
        ("pull access denied for python, repository does not exist", "did not let the engine pull it", "check"),
        ("manifest for python:3.12-slim not found: manifest unknown", "python:3.12-slim is not there", "check"),
        (
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
            "does not reach the registry of the build stage's image python:3.12-slim",
            "or set",
        ),
        (
            "failed to do request: dial tcp: lookup registry-1.docker.io: Temporary failure in name resolution",
            "does not reach the registry",
            "or set",
        ),
        ("dial tcp 1.2.3.4:443: connect: network is unreachable", "does not reach the registry", "or set"),
        ("net/http: request canceled (Client.Timeout exceeded while awaiting headers)", "does not reach", "or set"),
    ],
)
def test_the_image_of_the_build_stage(message: str, reason: str, remedy: str) -> None:
    """Where it is not the base, its own setting is named: another base would not help. No pull is taken for a step."""
    pulled = PulledImage.find("docker.io/library/python:3.12-slim", "python:3.12-slim")
    error = build_failure(AT, message, ["#2 something"], pulled)
    assert reason in error.reason
    assert f"{remedy} METAFLOW_PREBUILT_BUILD_IMAGE" in error.remedy
    assert "BASE_IMAGE" not in str(error)
    of_the_base = build_failure(AT, message, [], PulledImage.find("r.example/base:1", "python:3.12-slim"))
    assert "METAFLOW_PREBUILT_BASE_IMAGE" in of_the_base.remedy


def test_unknown_failure() -> None:
    """One that is not known says what the engine said, and points to the output where there is some."""
    assert build_failure(AT, "exit code 3").reason == "exit code 3"
    assert build_failure(AT, "exit code 3", ["line"]).remedy == "see what it said"
    assert build_failure(AT, "exit code 3").remedy == ""


@pytest.mark.parametrize(
    ("message", "kind", "remedy", "passing"),
    [
        ("unauthorized: authentication required", UnauthorizedError, "docker login registry.example:5000", False),
        ("no basic auth credentials", UnauthorizedError, "docker login", False),
        ("denied: requested access to the resource is denied", ForbiddenError, "repository exists", False),
        ("toomanyrequests: slow down", RateLimitedError, "wait", True),
        ("received unexpected HTTP status: 503 Service Unavailable", RegistryUnreachableError, "reaches", True),
        ("net/http: TLS handshake timeout", RegistryUnreachableError, "reaches", True),
        ("dial tcp 127.0.0.1:1: connect: connection refused", RegistryUnreachableError, "reaches", True),
        ("http: server gave HTTP response to HTTPS client", RegistryError, "insecure-registries", False),
        ("tls: x509: certificate signed by unknown authority", RegistryError, "certs.d", False),
        ("write: no space left on device", BuildError, "docker system prune", False),
        ("something else", RegistryError, "", False),
    ],
)
def test_pushes(message: str, kind: type[PrebuiltError], remedy: str, *, passing: bool) -> None:
    """A refused push is the error of its kind, names the image, and is tried again only where that may help."""
    error = push_failure(AT, message)
    assert type(error) is kind
    assert AT in str(error)
    assert remedy in error.remedy
    assert is_passing(error) is passing


def test_nobody_logs_in_to_amazon() -> None:
    """What ECR refuses names the IAM action, for a push and for a base image."""
    said = "denied: User: arn:aws:iam::1:user/me is not authorized to perform: {} on resource: x"
    at = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/flows:v1"
    refused = push_failure(at, said.format("ecr:InitiateLayerUpload"))
    assert isinstance(refused, ForbiddenError)
    assert "allow ecr:InitiateLayerUpload" in refused.remedy
    assert (
        "allow ecr:BatchGetImage"
        in build_failure(at, f"pull access denied for x: {said.format('ecr:BatchGetImage')}").remedy
    )
    assert "docker login" not in push_failure(at, "unexpected status: 403 Forbidden").remedy


def test_build_arguments_stay_secret() -> None:
    """The SDK's errors have the request in them, and so the passwords of proxies; ours have not."""
    request = "/v1.41/build?t=x&buildargs=%7B%22HTTPS_PROXY%22%3A%22http%3A%2F%2Fme%3As3cret%40proxy%22%7D"
    for error in (
        cut_off("build", AT, OSError(f"Max retries exceeded with url: {request} (Caused by X)")),
        build_failure(AT, answer_of(APIError(f"500 Server Error for http+docker://localhost{request}"))),
    ):
        assert "s3cret" not in str(error)
    assert "Caused by X" in str(cut_off("build", AT, OSError(f"url: {request} (Caused by X)")))
