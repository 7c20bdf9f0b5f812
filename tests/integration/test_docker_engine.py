"""Reaching real Docker Engines in the ways in which the docker command does."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from prebuilt.core.settings import Settings
from prebuilt.docker import engine
from prebuilt.docker.engine import connect, engine_problem
from prebuilt.testing.engines.docker import Docker

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has much to do may be slow to answer."""
    monkeypatch.setattr(engine, "_PROBE_TIMEOUT_S", 60.0)


def version_by(environ: dict[str, str]) -> str:
    """Return the version of the engine that a user with these variables reaches."""
    assert engine_problem(Settings(environ, {})) is None
    with contextlib.closing(connect(Settings(environ, {}))) as client:
        return str(client.version()["Version"])


def test_by_its_address(any_docker: Docker) -> None:
    """DOCKER_HOST leads to the oldest release that is supported and to the current one."""
    assert version_by({"DOCKER_HOST": any_docker.host}).startswith(any_docker.version)


def test_by_context(any_docker: Docker, tmp_path: Path) -> None:
    """A context that the command has made is found by its name, and when it is the current one."""
    own = [("DOCKER_CONFIG", str(tmp_path)), ("DOCKER_HOST", "")]
    any_docker.ask("context", "create", "lab", f"--docker=host={any_docker.host}", environ=own)
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert version_by({**environ, "DOCKER_CONTEXT": "lab"}).startswith(any_docker.version)
    any_docker.ask("context", "use", "lab", environ=own)
    assert version_by(environ).startswith(any_docker.version)
