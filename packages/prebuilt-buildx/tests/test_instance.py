"""The command ``docker buildx`` and its builders."""

from __future__ import annotations

import os
from typing import Any

import pytest

from prebuilt.buildx.config import BuildxConfig
from prebuilt.buildx.instance import BuilderInstance, BuilderNode, find_instance
from prebuilt.core.errors import EngineError, SettingError
from prebuilt.core.settings import Settings

_NO_PLUGIN = "docker: unknown command: docker buildx\n\nRun 'docker --help' for more information\n"
_NO_DAEMON = """\
Name:   default
Driver:
Error:  Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?
"""
_OF_OLD = """\
Name:   builder
Driver: docker-container

Nodes:
Name:      builder0
Endpoint:  unix:///var/run/docker.sock
Status:    running
Flags:     --debug
Buildkit:  v0.12.5
Platforms: linux/amd64

Name:      builder1
Endpoint:  tcp://arm.example:2376
Status:    running
Buildkit:  v0.13.0
"""


def _find(name: str | None = None) -> BuilderInstance:
    return find_instance(name, os.environ)


def test_builder_is_read(docker: Any) -> None:
    """Name, driver and daemons are those of buildx's answer; labels and policies in it are no fields."""
    instance = _find("r0")
    assert str(instance) == "r0 (driver remote)"
    assert [(node.endpoint, node.status, node.buildkit) for node in instance.nodes] == [
        ("tcp://127.0.0.1:38961", "running", "v0.34.2")
    ]
    assert docker.calls[-1]["arguments"] == ["buildx", "inspect", "r0"]


def test_current_builder(docker: Any) -> None:
    """No name asks for the current builder."""
    docker.has_builder("current", "docker-container")
    assert _find().name == "current"
    assert docker.calls[-1]["arguments"] == ["buildx", "inspect"]


def test_older_answers_are_read(docker: Any) -> None:
    """Answers of buildx 0.12 are read, of several daemons; the oldest of them decides what can be asked."""
    docker.plays("version", stdout="github.com/docker/buildx v0.12.1 30feaa1\n")
    docker.plays("inspect", stdout=_OF_OLD)
    instance = _find("builder")
    assert [node.buildkit for node in instance.nodes] == ["v0.12.5", "v0.13.0"]
    assert not instance.is_reproducible
    assert instance.form == "buildkit"


@pytest.mark.parametrize(
    ("version", "is_accepted"),
    [
        ("github.com/docker/buildx v0.9.1 ed00243", False),
        ("github.com/docker/buildx v0.10.0 876462", True),
        ("github.com/docker/buildx v1.0.0 876462", True),
        ("github.com/docker/buildx 0.0.0+unknown", True),
        ("github.com/docker/buildx devel", True),
    ],
)
def test_old_buildx_is_refused(docker: Any, version: str, is_accepted: bool) -> None:  # noqa: FBT001 - a column
    """A buildx before 0.10 is refused before anything starts; builds from source, which say no version, are taken."""
    docker.plays("version", stdout=version + "\n")
    if is_accepted:
        assert _find().name == "r0"
        return
    with pytest.raises(EngineError, match=r"its version is 0\.9, and 0\.10 is needed"):
        _find()
    assert len(docker.calls) == 1


def test_missing_plugin_is_said(docker: Any) -> None:
    """A docker without buildx: the plugin to install is named."""
    docker.plays("version", stderr=_NO_PLUGIN, status=1)
    with pytest.raises(EngineError, match="unknown command: docker buildx") as caught:
        _find()
    assert "docker-buildx" in caught.value.remedy


def test_unknown_builder_is_said(docker: Any) -> None:
    """A name that buildx does not know: how to create it, and the setting."""
    docker.plays("inspect", stderr='ERROR: no builder "nope" found\n', status=1)
    with pytest.raises(EngineError, match='builder nope: no builder "nope" found') as caught:
        _find("nope")
    assert "docker buildx create --name nope" in caught.value.remedy
    assert "METAFLOW_PREBUILT_BUILDX_BUILDER" in caught.value.remedy


def test_absent_engine_is_said(docker: Any) -> None:
    """The builder of an engine that does not answer: which it is, and what else there is."""
    docker.plays("inspect", stdout=_NO_DAEMON)
    with pytest.raises(EngineError, match="builder default: Cannot connect to the Docker daemon") as caught:
        _find()
    assert "--name prebuilt" in caught.value.remedy


def test_remote_that_does_not_answer_is_said(docker: Any) -> None:
    """A remote BuildKit that does not answer is named with its address; others are started by a build."""
    docker.has_builder("far", "remote", status="inactive")
    with pytest.raises(EngineError, match=r"builder far at tcp://127\.0\.0\.1:38961: no BuildKit answers"):
        _find("far")
    for driver in ("docker-container", "kubernetes"):
        docker.has_builder("near", driver, status="inactive", buildkit="")
        instance = _find("near")
        assert instance.is_reproducible
        assert instance.form == "buildkit"


def test_settings_are_read() -> None:
    """Settings have their values; malformed ones are refused by name."""
    assert BuildxConfig.from_settings(Settings({}, {})) == BuildxConfig()
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_BUILDX_OPTIONS"):
        BuildxConfig.from_settings(Settings({"METAFLOW_PREBUILT_BUILDX_OPTIONS": "--label 'a"}, {}))
    with pytest.raises(SettingError, match="METAFLOW_PREBUILT_BUILDX_TIMEOUT"):
        BuildxConfig.from_settings(Settings({"METAFLOW_PREBUILT_BUILDX_TIMEOUT": "soon"}, {}))


def test_fields_with_commas_are_quoted() -> None:
    """A value with a comma or a quote stays one field of buildx's CSV."""
    from prebuilt.buildx.command import _comma_separated

    assert _comma_separated(("a=b", "c=d,e", 'f="g"')) == 'a=b,"c=d,e","f=""g"""'


@pytest.mark.parametrize(
    ("driver", "version", "lacks"),
    [
        ("docker", "v0.26.2", "layers are gzip"),
        ("docker-container", "v0.12.5", "another digest"),
        ("docker-container", "v0.13.0", ""),
        ("docker-container", "v0.0.0+unknown", ""),
        ("docker-container", "", ""),
    ],
)
def test_shortcomings(driver: str, version: str, lacks: str) -> None:
    """What a builder cannot do is known by its driver and its version; a build from source has none, and is new."""
    instance = BuilderInstance(docker="docker", name="x", driver=driver, nodes=(BuilderNode(buildkit=version),))
    assert lacks in instance.shortcomings
    assert bool(lacks) is bool(instance.shortcomings)
    assert instance.form == "buildkit"
