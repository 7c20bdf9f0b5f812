"""Pushes, against a small engine that answers as real ones did."""

from __future__ import annotations

import base64
import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import CancelledError, EngineError, ForbiddenError, RegistryUnreachableError
from prebuilt.core.retry import Backoff
from prebuilt.core.settings import Settings
from prebuilt.docker.engine import connect
from prebuilt.docker.image_build import DeadlineError, Limits
from prebuilt.docker.push import ImagePush
from prebuilt.oci.docker_config import Login
from prebuilt.oci.reference import parse_reference
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.served import serving

DIGEST = "sha256:" + "4" * 64
PUSHED: list[dict[str, Any]] = [
    {"status": "The push refers to repository [host:5000/team/image]"},
    {"status": "Preparing", "progressDetail": {}, "id": "aefcfd2c7bb5"},
    {"status": "Pushing", "progressDetail": {"current": 512, "total": 1000}, "id": "aefcfd2c7bb5"},
    {"status": "Pushing", "progressDetail": {"current": 1536, "total": 1000}, "id": "aefcfd2c7bb5"},
    {"status": "Pushed", "progressDetail": {}, "id": "aefcfd2c7bb5"},
    {"status": f"tag: digest: {DIGEST} size: 736"},
    {"progressDetail": {}, "aux": {"Tag": "tag", "Digest": DIGEST, "Size": 736}},
]
SERVED = {"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": DIGEST, "size": 736}


def failed(text: str) -> list[dict[str, Any]]:
    """Return the events of a push that fails."""
    return [PUSHED[0], {"errorDetail": {"message": text}, "error": text}]


@dataclass
class FakeEngine:
    """Answers each push with the next of `pushes`; to None with nothing, on an open connection, and to an empty one by going away."""

    host: str = ""
    pushes: list[list[dict[str, Any]] | None] = field(default_factory=list)
    describes: bool = True
    asked: list[str] = field(default_factory=list)
    logins: list[dict[str, Any]] = field(default_factory=list)
    is_silent: threading.Event = field(default_factory=threading.Event)
    was_left: threading.Event = field(default_factory=threading.Event)
    clients: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def push(self, **fields: Any) -> ImagePush:
        """Return the push of an image that is in the engine."""
        client = connect(Settings({"DOCKER_HOST": self.host}, {})).api
        self.clients.callback(client.close)
        given = {
            "client": client,
            "image": "metaflow-prebuilt-build:1",
            "reference": parse_reference("host:5000/team/image:tag"),
            "login": None,
            "progress": RecordingProgress(),
            "limits": Limits.start(Cancellation(), 30),
            "backoff": Backoff(attempts=3, base_s=0.0),
            **fields,
        }
        return ImagePush(**given)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: FakeEngine

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing."""

    def address_string(self) -> str:
        """Return nothing: clients of Unix sockets have no address."""
        return ""

    def do_GET(self) -> None:
        """Answer."""
        path = self._asked()
        if path.endswith("/version"):
            self._json(200, {"ApiVersion": "1.41", "Version": "20.10.24"})
        elif "/distribution/" in path and self.engine.describes:
            self._json(200, {"Descriptor": SERVED})
        else:
            self._json(404, {"message": "page not found"})

    def do_DELETE(self) -> None:
        """Answer."""
        self._asked()
        self._json(404, {"message": "No such image"})

    def do_POST(self) -> None:
        """Answer."""
        path = self._asked()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.endswith("/tag"):
            self._json(201, {})
            return
        self.engine.logins.append(json.loads(base64.urlsafe_b64decode(self.headers.get("X-Registry-Auth") or "e30=")))
        events = self.engine.pushes.pop(0)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunks([PUSHED[0]] if events is None else events)
        if events is None:
            self.engine.is_silent.set()
            self.connection.settimeout(60)
            if self.rfile.read(1) == b"":
                self.engine.was_left.set()
            self.close_connection = True

    def _chunks(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            data = json.dumps(event).encode() + b"\r\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if not events:
            self.close_connection = True
        elif events != [PUSHED[0]]:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _asked(self) -> str:
        path = self.path.partition("?")[0].partition("/v1.41")
        self.engine.asked.append(f"{self.command} {path[2] or path[0]}")
        return self.path.partition("?")[0]

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def fake_engine(path: Path) -> Iterator[FakeEngine]:
    """Give an engine on a Unix socket."""
    engine = FakeEngine(host=f"unix://{path}")
    handler = type("Handler", (_Handler,), {"engine": engine})
    with serving(socketserver.ThreadingUnixStreamServer(str(path), handler)), engine.clients:
        yield engine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """An engine, and a user without logins."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with fake_engine(tmp_path / "docker.sock") as engine:
        yield engine


def test_pushed_is_described_as_it_is_served(engine: FakeEngine) -> None:
    """The digest is the engine's word, media type and size are the registry's; all bytes that were announced are reported."""
    engine.pushes = [PUSHED]
    push = engine.push()
    assert push.push() == Descriptor.from_json(SERVED)
    assert isinstance(push.progress, RecordingProgress)
    assert (push.progress.total_bytes, push.progress.done_bytes) == (1000, 1000)
    assert [asked for asked in engine.asked if asked.startswith("POST")] == [
        "POST /images/metaflow-prebuilt-build:1/tag",
        "POST /images/host:5000/team/image/push",
    ]


def test_digest_that_is_said_in_words_alone(engine: FakeEngine) -> None:
    """Engines whose images are containerd's name it in their last line, and nowhere else."""
    engine.pushes = [PUSHED[:-1]]
    assert engine.push().push() == Descriptor.from_json(SERVED)


@pytest.mark.parametrize("reason", ["the engine says no digest", "the engine cannot describe"])
def test_what_is_not_known_is_not_claimed(engine: FakeEngine, reason: str) -> None:
    """An engine that does not say the digest, or cannot ask the registry, gives no descriptor, and no error."""
    engine.pushes, engine.describes = [PUSHED[:-1] if "digest" in reason else PUSHED], False
    assert engine.push().push() is None


@pytest.mark.parametrize(
    ("login", "shown"),
    [
        (Login.explicit(Credentials(username="me", secret="s3cret")), {"username": "me", "password": "s3cret"}),
        (Login.explicit(Credentials(username="", secret="t0ken")), {"identitytoken": "t0ken"}),
        (None, {}),
    ],
)
def test_login(engine: FakeEngine, login: Login | None, shown: dict[str, str]) -> None:
    """The login that is given goes to the engine: a password, or an identity token where there is no user."""
    engine.pushes = [PUSHED]
    engine.push(login=login).push()
    assert engine.logins == [shown]


@pytest.mark.parametrize(
    "text",
    [
        "received unexpected HTTP status: 503",
        "tag does not exist: host:5000/team/image:tag",
        "errors:\ndigest invalid\nmanifest blob unknown: blob unknown to registry\n",
    ],
)
def test_passing_failures_are_met_again(engine: FakeEngine, text: str) -> None:
    """What may be over soon is tried again, and so is what another build got in the way of; the image is named anew."""
    engine.pushes = [failed(text), failed(text), PUSHED]
    assert engine.push().push() is not None
    assert len([asked for asked in engine.asked if asked.endswith("/tag")]) == 3


def test_trying_ends(engine: FakeEngine) -> None:
    """After three attempts the last failure is the error."""
    engine.pushes = [failed("received unexpected HTTP status: 503")] * 3
    with pytest.raises(RegistryUnreachableError, match="503"):
        engine.push().push()
    assert engine.pushes == []


def test_refusal_is_an_error_at_once(engine: FakeEngine) -> None:
    """A refusal is not tried again."""
    engine.pushes = [failed("denied: requested access to the resource is denied"), PUSHED]
    with pytest.raises(ForbiddenError, match="host:5000/team/image:tag"):
        engine.push().push()
    assert len(engine.pushes) == 1


def test_cancelled_push_is_left(engine: FakeEngine) -> None:
    """A push that is cancelled ends at once, and its connection is closed, so that the engine stops too."""
    cancellation = Cancellation()
    engine.pushes = [None]
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(engine.push(limits=Limits.start(cancellation, 600)).push)
        assert engine.is_silent.wait(60)
        cancellation.cancel()
        with pytest.raises(CancelledError):
            pushing.result(timeout=60)
    assert engine.was_left.wait(60)


def test_push_that_takes_too_long(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the time leaves the push as well."""
    clock = SimpleNamespace(monotonic=lambda: 31.0 if engine.is_silent.is_set() else 0.0)
    monkeypatch.setattr("prebuilt.docker.image_build.time", clock)
    engine.pushes = [None]
    with pytest.raises(DeadlineError):
        engine.push(limits=Limits.start(Cancellation(), 30)).push()
    assert engine.was_left.wait(60)


def test_engine_that_goes_away(engine: FakeEngine) -> None:
    """An engine that stops in the middle of a push is said to have cut the connection."""
    engine.pushes = [[]]
    with pytest.raises(EngineError, match="cut the connection"):
        engine.push().push()


def test_all_names_are_removed(engine: FakeEngine) -> None:
    """The engine forgets the name that it was pushed as and the one it was built as; names that are gone are no error."""
    engine.push().remove()
    assert [asked for asked in engine.asked if asked.startswith("DELETE")] == [
        "DELETE /images/host:5000/team/image:tag",
        "DELETE /images/metaflow-prebuilt-build:1",
    ]
