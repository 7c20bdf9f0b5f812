"""The builder ``docker``, as far as it goes without an engine; real ones are in the integration tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prebuilt.core.errors import EngineError, SettingError
from prebuilt.core.plugins import BUILD_SERVICES
from prebuilt.core.settings import Settings
from prebuilt.docker import LocalDockerBuildService


def settings(tmp_path: Path, **values: str) -> Settings:
    """Return the settings of a user without an engine."""
    return Settings({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "PATH": str(tmp_path), **values}, {})


def test_is_found_by_its_name() -> None:
    """METAFLOW_PREBUILT_BUILD_SERVICE=docker selects it."""
    assert isinstance(BUILD_SERVICES.get("docker"), LocalDockerBuildService)


def test_making_one_asks_nobody() -> None:
    """Where everything is there already a deployment neither reaches the engine nor imports its SDK."""
    program = (
        "import sys; from prebuilt.docker import LocalDockerBuildService; LocalDockerBuildService().image_identity_suffix();"
        "print([name for name in ('docker', 'requests', 'urllib3') if name in sys.modules])"
    )
    environ = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_engine_is_false_with_a_reason(tmp_path: Path) -> None:
    """The published call does not raise: it says what is wrong, and what to do."""
    said: list[str] = []
    builder = LocalDockerBuildService(settings(tmp_path))
    assert (
        builder.build_and_push("FROM scratch", {}, "host/image:tag", {}, lambda text, **_: said.append(text)) is False
    )
    assert "tried to reach the Docker Engine" in said[-1]
    assert "start Docker" in said[-1]


def test_is_asked_before_anything_starts(tmp_path: Path) -> None:
    """``prepare`` asks the engine, and says that none answers."""
    with pytest.raises(EngineError, match="reach the Docker Engine"):
        LocalDockerBuildService(settings(tmp_path)).prepare()


@pytest.mark.parametrize(
    ("tag", "reason"), [("oci:/folder:tag", "a folder of this machine"), ("Host/Image:tag", "upper-case")]
)
def test_places_that_cannot_be_pushed_to(tmp_path: Path, tag: str, reason: str) -> None:
    """A layout, or what is no reference, is refused before the engine is asked."""
    said: list[str] = []
    assert not LocalDockerBuildService(settings(tmp_path)).build_and_push("FROM scratch", {}, tag, {}, said.append)
    assert reason in said[-1]
    assert "Docker Engine" not in said[-1]


def test_no_engine_takes_the_plain_form(tmp_path: Path) -> None:
    """What an unknown builder can do is the least that both of Docker's can."""
    options = LocalDockerBuildService(settings(tmp_path)).dockerfile_build_options()
    assert options.buildkit_deferred_input_mounts is False


@pytest.mark.parametrize(
    ("name", "value"),
    [("DOCKER_BUILDER", "buildx"), ("DOCKER_KEEP_LOCAL", "perhaps"), ("DOCKER_TIMEOUT", "1h")],
)
def test_malformed_settings(tmp_path: Path, name: str, value: str) -> None:
    """A malformed setting is named when the builder is made."""
    with pytest.raises(SettingError, match=f"METAFLOW_PREBUILT_{name}"):
        LocalDockerBuildService(settings(tmp_path, **{f"METAFLOW_PREBUILT_{name}": value}))
