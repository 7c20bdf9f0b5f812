"""Which engine is taken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prebuilt.core.errors import ContainerError, SettingError
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import ContainerRun, available_engines, open_engine, select_engine
from prebuilt.oci.containers.command_line_engine import CommandLineEngine


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


def test_a_step_for_a_larger_machine_runs_here(tmp_path: Path) -> None:
    """It gets the processors that there are, and its user is told: the engines would refuse it, or not say a word."""
    docker, podman = '{"OSType": "linux", "NCPU": 2}', '{"host": {"os": "linux", "cpus": 2}}'
    program(tmp_path, "docker", f"echo '{docker}'")
    program(tmp_path, "podman", f"echo '{podman}'")
    image = f"host/image@sha256:{'0' * 64}"
    for name in ("docker", "podman"):
        engine = open_engine(name, settings(tmp_path))
        assert isinstance(engine, CommandLineEngine)
        small, large = (ContainerRun(image=image, command=("true",), cpus=cpus) for cpus in (1.5, 16))
        assert (engine.adapted(large).cpus, engine.adapted(small).cpus) == (2, 1.5)
        assert engine.notes(large) == (f"prebuilt: {name} has 2 processors for a step that asks for 16",)
        assert engine.notes(small) == ()


def test_podman_without_control_groups_holds_no_limits(tmp_path: Path) -> None:
    """A user to whom systemd delegates no control of processors runs steps nevertheless, and is told."""
    host = '{"host": {"os": "linux", "cpus": 8, "cgroupControllers": ["memory", "pids"]}}'
    program(tmp_path, "podman", f"echo '{host}'")
    engine = open_engine("podman", settings(tmp_path))
    assert isinstance(engine, CommandLineEngine)
    run = ContainerRun(image=f"host/image@sha256:{'0' * 64}", command=("true",), cpus=1, memory_mb=900)
    assert (engine.adapted(run).cpus, engine.adapted(run).memory_mb) == (None, 900)
    assert engine.notes(run) == (
        "prebuilt: podman does not limit processors (1): systemd delegates no control of that",
    )


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
