"""buildx with each of its drivers, and images for a platform that this machine is not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from prebuilt.core.platforms import Platform
from prebuilt.testing.engines.binfmt import (
    arm64_emulation,
    is_arm64_emulated,
    is_arm64_emulated_at_rest,
    no_arm64_emulation,
)
from prebuilt.testing.engines.buildkit import BuildKit
from prebuilt.testing.engines.buildx import EMBEDDED, container_builder, remote_builder
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.process import EngineError
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.image_tree import Tree

pytestmark = pytest.mark.buildx

ARM64 = Platform.parse("linux/arm64")


@pytest.fixture
def builder(request: pytest.FixtureRequest) -> Callable[[Docker, str], AbstractContextManager[str]]:
    """Return what makes a builder of a driver in an engine."""

    def make(docker: Docker, driver: str) -> AbstractContextManager[str]:
        if driver == "remote":
            daemon: BuildKit = request.getfixturevalue("buildkit")
            return remote_builder(docker, daemon)
        if driver == "docker-container":
            return container_builder(docker, registry=request.getfixturevalue("registry_host"))
        return nullcontext(EMBEDDED)

    return make


@pytest.mark.parametrize("driver", ["docker", "docker-container", "remote"])
def test_each_driver_builds_and_pushes(
    driver: str,
    any_docker: Docker,
    builder: Callable[..., AbstractContextManager[str]],
    registry_host: str,
    two_stages: Path,
    pushed_tree: Callable[..., Tree],
):
    """A two-stage build goes to the registry, by a builder that is gone afterwards with all that was its."""
    repository = f"{registry_host}/buildx/{driver}"
    with wanted_engine(), builder(any_docker, driver) as name:
        built = ["buildx", "build", f"--builder={name}", "--push", "--provenance=false", "--network=host"]
        any_docker.ask(*built, "--allow=network.host", f"--tag={repository}:built", str(two_stages))
    assert pushed_tree(repository, "built")["opt/made"].kind == "file"
    assert set(any_docker.ask("buildx", "ls", "--format={{.Name}}").split()) == {EMBEDDED}
    assert any_docker.ask("volume", "ls", "--quiet") == any_docker.ask("ps", "--all", "--quiet") == ""


def test_a_final_stage_for_another_platform_needs_no_emulation(
    docker_current: Docker, buildkit: BuildKit, registry_host: str, two_stages: Path, pushed_tree: Callable[..., Tree]
):
    """Where RUN is on the builder's platform and the last stage only copies, a machine that cannot run arm64 builds it."""
    dockerfile = two_stages / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("FROM ", "FROM --platform=$BUILDPLATFORM ", 1))
    repository = f"{registry_host}/buildx/arm64"
    with wanted_engine(), no_arm64_emulation(), remote_builder(docker_current, buildkit) as name:
        assert not is_arm64_emulated()
        built = ["buildx", "build", f"--builder={name}", "--push", "--provenance=false", "--platform=linux/arm64"]
        docker_current.ask(*built, f"--tag={repository}:copied", str(two_stages))
        dockerfile.write_text(dockerfile.read_text() + 'RUN ["/usr/bin/true"]\n')
        with pytest.raises(EngineError, match="exec format error"):
            docker_current.ask(*built, f"--tag={repository}:run", str(two_stages))
    assert pushed_tree(repository, "copied", platform=ARM64)["opt/made"].kind == "file"


def test_steps_run_on_another_platform_with_emulation(
    docker_current: Docker, buildkit: BuildKit, registry_host: str, debian_base: str, tmp_path: Path
):
    """Debian's base for arm64 works: its Python runs in a step, while emulation is switched on for the test."""
    before = is_arm64_emulated_at_rest()
    program = "import ssl, platform; open('/machine', 'w').write(platform.machine())"
    (tmp_path / "Dockerfile").write_text(
        f'FROM {debian_base}\nRUN python3 -c "{program}" && test "$(cat /machine)" = aarch64\n'
    )
    with wanted_engine(), arm64_emulation(), remote_builder(docker_current, buildkit) as name:
        built = ["buildx", "build", f"--builder={name}", "--push", "--provenance=false", "--platform=linux/arm64"]
        docker_current.ask(*built, f"--tag={registry_host}/buildx/emulated:run", str(tmp_path))
    assert is_arm64_emulated_at_rest() == before
