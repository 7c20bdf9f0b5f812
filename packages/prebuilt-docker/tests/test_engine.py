"""Connections to the Docker Engine; real ones are in the integration tests."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from prebuilt.core.errors import EngineError
from prebuilt.core.settings import Settings
from prebuilt.docker import engine
from prebuilt.docker.engine import connect, engine_problem
from prebuilt.testing.served import serving


def settings_for(host: str) -> Settings:
    """Return settings of a user whose engine is at `host`."""
    return Settings({"DOCKER_HOST": host}, {})


class Answers(BaseHTTPRequestHandler):
    """Answers as an engine whose version was asked for."""

    status, answer = 200, {"ApiVersion": "1.41"}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing."""

    def address_string(self) -> str:
        """Return nothing: clients of Unix sockets have no address."""
        return ""

    def do_GET(self) -> None:
        """Answer."""
        body = json.dumps(self.answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Refuses(Answers):
    """Answers as an engine with an authorization plugin that says no."""

    status, answer = 403, {"message": "authorization denied by plugin"}


@contextlib.contextmanager
def answering(path: Path, handler: type[Answers]) -> Iterator[str]:
    """Give the address of a server on a Unix socket."""
    with serving(socketserver.ThreadingUnixStreamServer(str(path), handler)):
        yield f"unix://{path}"


@contextlib.contextmanager
def as_nobody(path: Path) -> Iterator[None]:
    """Close `path` to its owner, and be an ordinary user, for the time of the body."""
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that answers gives a client with the version that both speak."""
    monkeypatch.setattr(engine, "_PROBE_TIMEOUT_S", 60.0)
    with answering(tmp_path / "docker.sock", Answers) as host:
        client = connect(settings_for(host))
        assert client.api.api_version == "1.41"
        client.close()
        assert engine_problem(settings_for(host)) is None


def test_no_socket(tmp_path: Path) -> None:
    """Where no engine was ever started, the error says which address was tried, who named it, and what to do."""
    with pytest.raises(EngineError) as caught:
        connect(settings_for(f"unix://{tmp_path}/docker.sock"))
    assert str(caught.value) == (
        f"tried to reach the Docker Engine at unix://{tmp_path}/docker.sock (DOCKER_HOST): there is no such socket;"
        " start Docker, or say where it is: DOCKER_HOST or `docker context use`"
    )


def test_stale_socket(tmp_path: Path) -> None:
    """A socket that an engine left behind is nobody listening."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
    with pytest.raises(EngineError, match="nothing listens there"):
        connect(settings_for(f"unix://{tmp_path}/docker.sock"))


def test_file_in_place_of_a_socket(tmp_path: Path) -> None:
    """A file where the socket should be is nobody listening."""
    (tmp_path / "docker.sock").write_text("")
    with pytest.raises(EngineError, match="nothing listens there"):
        connect(settings_for(f"unix://{tmp_path}/docker.sock"))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that this user may not open names the group to join."""
    monkeypatch.setattr(engine, "_group", lambda _: "docker")
    with answering(tmp_path / "docker.sock", Answers) as host, as_nobody(tmp_path / "docker.sock"):
        problem = engine_problem(settings_for(host))
    assert problem is not None
    assert problem.reason == "permission denied: this user may not use it"
    assert "usermod -aG docker" in problem.remedy


def test_refused_by_the_engine(tmp_path: Path) -> None:
    """An engine that answers with a refusal is quoted."""
    with (
        answering(tmp_path / "docker.sock", Refuses) as host,
        pytest.raises(EngineError, match="it refused: authorization denied"),
    ):
        connect(settings_for(host))


def test_nothing_listens() -> None:
    """A port on which nobody listens is said to be that."""
    with pytest.raises(EngineError, match="nothing listens there"):
        connect(settings_for("tcp://127.0.0.1:1"))


def test_malformed_address() -> None:
    """An address that is none is quoted with what is wrong."""
    with pytest.raises(EngineError, match=r"gopher://x \(DOCKER_HOST\).*protocol"):
        connect(settings_for("gopher://x"))


def test_silent_engine_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that takes connections and never answers is a problem within a bounded time."""
    monkeypatch.setattr(engine, "_PROBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        problem = engine_problem(settings_for(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
    assert problem is not None
    assert "no answer within" in problem.reason
