"""Which engine is taken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prebuilt.core.errors import ContainerError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import available_engines, open_engine, select_engine


@pytest.fixture(autouse=True)
def _no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither docker nor podman is in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))


def settings(tmp_path: Path, engine: str | None = None) -> Settings:
    """Settings with an own cache."""
    chosen = {"METAFLOW_PREBUILT_CONTAINER_ENGINE": engine} if engine else {}
    return Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache"), **chosen}, {})


def program(tmp_path: Path, name: str, script: str) -> None:
    """Put a program into PATH."""
    (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / name).chmod(0o755)


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_an_explicit_engine_is_never_replaced(tmp_path: Path, name: str) -> None:
    """Even where another one would work."""
    with pytest.raises(ContainerError, match=f"no program {name} in PATH"):
        select_engine(settings(tmp_path, name))


def test_an_unknown_engine(tmp_path: Path) -> None:
    """The error names those that there are."""
    with pytest.raises(SettingError, match="'lxc' is not one of docker, podman, rootless"):
        select_engine(settings(tmp_path, "lxc"))


def test_every_engine_that_failed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason of each."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ContainerError) as caught:
        select_engine(settings(tmp_path))
    for part in ("docker: ", "no program docker", "podman: ", "no program podman", "rootless: ", "it needs Linux"):
        assert part in str(caught.value)
    assert available_engines(settings(tmp_path)) == []


def test_docker_comes_first(tmp_path: Path) -> None:
    """A daemon that answers is used."""
    program(tmp_path, "docker", 'case $1 in info) echo \'{"OSType": "linux"}\' ;; *) echo Docker version 20 ;; esac')
    assert select_engine(settings(tmp_path)).name == "docker"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo podman version 4", "Podman in disguise"),
        ('case $1 in info) echo \'{"ServerErrors": ["Cannot connect"]}\' ;; esac', "Cannot connect"),
        ('case $1 in info) echo \'{"OSType": "windows"}\' ;; esac', "containers of windows"),
        ("echo cannot connect >&2; exit 1", "cannot connect"),
    ],
)
def test_a_docker_that_cannot_serve(tmp_path: Path, script: str, reason: str) -> None:
    """The reason is named."""
    program(tmp_path, "docker", script)
    with pytest.raises(ContainerError, match=reason):
        open_engine("docker", settings(tmp_path)).check()
