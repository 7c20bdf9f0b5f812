"""Images of the native builder on the oldest supported Docker Engine."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX
from prebuilt.oci.containers import open_engine
from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.engines.wanted import wanted_engine

pytestmark = pytest.mark.docker

KINDS = ["pypi", "mixed"]
PROGRAM = "import sys, talker, listener; print(sys.prefix, talker.__version__, listener.__version__)"
XY = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """A daemon of our own."""
    with wanted_engine(), docker_engine() as docker, pytest.MonkeyPatch.context() as patch:
        for name, value in docker.environ.items():
            patch.setenv(name, value)
        yield docker


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that the daemon reaches."""
    with wanted_engine(), distribution_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def asked(kind: str, pantry: Any) -> dict[str, Any]:
    """What a kind of environment asks for."""
    wheels = {"pypi": {"talker": ""}, "index": pantry.index.url}
    conda = {"conda": {"greeter": "", "prefixed": ""}, "channels": [pantry.channel.url]}
    return {**wheels, **(conda if kind == "mixed" else {})}


def run(*command: str) -> str:
    """Run a docker command; what it said is part of the failure."""
    done = subprocess.run(["docker", *command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_docker_pulls_gzip_by_digest(
    kind: str, asked: dict[str, Any], docker: Docker, registry: str, make_bakery: Callable[..., Any], tmp_path: Path
) -> None:
    """What it has pulled and checked runs, with the environment's Python on the PATH."""
    repository = f"{registry}/pulled/{secrets.token_hex(4)}"
    image = make_bakery(tmp_path / "machine", repository, compression="gzip").bake(**asked)
    run("pull", "--quiet", image.reference)
    assert run("run", "--rm", "--network=host", image.reference, "python", "-c", PROGRAM).split() == [
        PREFIX,
        "1.0",
        "1.2",
    ]
    assert run("run", "--rm", "--network=host", image.reference, "talk").strip() == "talker talks"
    history = run("history", "--no-trunc", "--format={{.CreatedBy}}", image.reference)
    assert "metaflow-prebuilt:" in history
    assert docker.version.split(".") >= ["20", "10"]


@pytest.mark.parametrize("kind", KINDS)
def test_docker_runs_zstd_of_a_layout(
    kind: str,
    asked: dict[str, Any],
    docker: Docker,
    bakery: Any,
    tmp_path: Path,
    run_in_image: Callable[..., str],
) -> None:
    """What a daemon of this age cannot pull is loaded, and runs alike."""
    image = bakery.bake(**asked)
    engine = open_engine("docker", Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache")}, {}))
    assert run_in_image(engine, image.reference, "python", "-c", PROGRAM).split() == [PREFIX, "1.0", "1.2"]
    assert run_in_image(engine, image.reference, "talk").strip() == "talker talks"
