"""Pulls of Docker and Podman, which a program plays that fails as often as it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prebuilt.core.errors import ContainerError, PrebuiltError, RateLimitedError, RegistryUnreachableError
from prebuilt.core.retry import Backoff
from prebuilt.oci.containers.command_line import CommandLine
from prebuilt.oci.containers.pull import ImagePull

IMAGE = f"registry.example/image@sha256:{'0' * 64}"

Attempts = Callable[[], int]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ImagePull, Attempts]]:
    """Return a function that makes a pull which fails with a message for some times, and what counts its attempts."""

    def make(message: str, *, times: int) -> tuple[ImagePull, Attempts]:
        (tmp_path / "message").write_text(message)
        path, attempts = tmp_path / "engine", tmp_path / "attempts"
        path.write_text(
            f'#!/bin/sh\necho "$@" >> {attempts}\n'
            f"[ $(wc -l < {attempts}) -gt {times} ] && exit 0\ncat {tmp_path}/message >&2; exit 1\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        backoff = Backoff(attempts=3, base_s=0.0)
        pull = ImagePull(command_line=CommandLine("engine"), reference=IMAGE, options=("--opt",), backoff=backoff)
        return pull, lambda: len(attempts.read_text().splitlines())

    return make


PASSING = [
    'Error response from daemon: Get "https://registry.example/v2/": net/http: TLS handshake timeout',
    "Error response from daemon: received unexpected HTTP status: 503 Service Unavailable",
    "Error: initializing source docker://registry.example/image: dial tcp 192.0.2.1:443: connect: connection refused",
    "error pulling image configuration: download failed after attempts=6: unexpected EOF",
    "Error response from daemon: toomanyrequests: too many requests for this minute",
]


@pytest.mark.parametrize("message", PASSING)
def test_what_passes_is_tried_again(program: Callable[..., tuple[ImagePull, Attempts]], message: str) -> None:
    """A registry that is away for a moment costs a wait."""
    pull, attempts = program(message, times=2)
    pull.pull()
    assert attempts() == 3


@pytest.mark.parametrize(("message", "kind"), [(PASSING[0], RegistryUnreachableError), (PASSING[-1], RateLimitedError)])
def test_what_does_not_pass_in_time_is_the_registrys(
    program: Callable[..., tuple[ImagePull, Attempts]], message: str, kind: type[PrebuiltError]
) -> None:
    """The error says so, with what the engine said, so that a later attempt of the task may be made."""
    pull, attempts = program(message, times=9)
    with pytest.raises(kind, match=r"ask engine to pull at registry.example/image@sha256:0+: Error") as caught:
        pull.pull()
    assert caught.value.reason == message
    assert attempts() == 3


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Error response from daemon: manifest for registry.example/image not found: manifest unknown", ContainerError),
        ("Error response from daemon: pull access denied for image", ContainerError),
        ("Cannot connect to the Docker daemon at unix:///docker.sock: connection refused", ContainerError),
        ("write /layer: no space left on device: unexpected EOF", ContainerError),
        ("toomanyrequests: You have reached your pull rate limit.", RateLimitedError),
    ],
)
def test_what_lasts_is_not_tried_again(
    program: Callable[..., tuple[ImagePull, Attempts]], message: str, kind: type[PrebuiltError]
) -> None:
    """An image that is not there, or not for us, will not be there a moment later; nor does a limit of hours pass."""
    pull, attempts = program(message, times=9)
    with pytest.raises(kind, match="ask engine to pull"):
        pull.pull()
    assert attempts() == 1
