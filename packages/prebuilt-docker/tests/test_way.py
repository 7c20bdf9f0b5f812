"""Which engines are asked to build with BuildKit."""

from __future__ import annotations

import pytest

from prebuilt.docker.way import EngineVersion


@pytest.mark.parametrize(
    ("name", "number", "os", "reason"),
    [
        ("Docker Engine", "23.0.0", "linux", None),
        ("Docker Engine", "28.5.2+dfsg4", "linux", None),
        ("Docker Engine", "20.10.24+dfsg1", "linux", "Docker Engine 23 or newer is needed"),
        ("Docker Engine", "library-import", "linux", "Docker Engine 23 or newer is needed"),
        ("Docker Engine", "28.0.0", "windows", "an engine for Linux is needed, and this one is for windows"),
        ("Podman", "4.3.1", "linux", "Podman has none"),
    ],
)
def test_engines_without_buildkit(name: str, number: str, os: str, reason: str | None) -> None:
    """Engines whose BuildKit knows our Dockerfiles have no reason against it; others say what is missing."""
    assert EngineVersion(name=name, number=number, os=os).without_buildkit == reason
