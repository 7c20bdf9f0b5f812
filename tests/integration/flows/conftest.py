"""Flows that run inside their images, which are baked once for the session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prebuilt.core.errors import ContainerError
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import open_engine
from prebuilt.testing.base_image import make_base_image

FLOWS = Path(__file__).parent
ENGINE = os.environ.get("METAFLOW_PREBUILT_CONTAINER_ENGINE", "rootless")


@dataclass(frozen=True)
class Outcome:
    """What a command printed, both streams together, and how it ended."""

    text: str
    code: int


@dataclass(frozen=True)
class Place:
    """Where flows run: a folder of their own, images shared with all others."""

    folder: Path
    variables: dict[str, str]

    def command(self, flow: str, *arguments: str) -> list[str]:
        """Return the command line of a flow of this folder."""
        return [sys.executable, str(FLOWS / f"{flow}.py"), "--environment=prebuilt", *arguments]

    def run(self, flow: str, *arguments: str, **variables: str) -> Outcome:
        """Run a flow's command line to its end."""
        return self._run(self.command(flow, *arguments), variables)

    def run_program(self, name: str, *arguments: str, **variables: str) -> Outcome:
        """Run a program of this folder, which may be a flow, with nothing but these arguments."""
        return self._run([sys.executable, str(FLOWS / f"{name}.py"), *arguments], variables)

    def _run(self, command: list[str], variables: dict[str, str]) -> Outcome:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
            check=False,
        )
        return Outcome(done.stdout, done.returncode)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the settings of all flows; the cache behind them is one for the session."""
    folder = tmp_path_factory.mktemp("shared")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "AWS_"))}
    settings = {
        "METAFLOW_HOME": str(folder / "home"),
        "METAFLOW_PREBUILT_BASE_IMAGE": make_base_image(folder / "base", tag="python"),
        "METAFLOW_PREBUILT_CACHE_DIR": str(folder / "cache"),
        "METAFLOW_PREBUILT_CONTAINER_ENGINE": ENGINE,
        "METAFLOW_USER": "tester",
    }
    return kept | settings


@pytest.fixture(scope="session")
def new_place(shared: dict[str, str]) -> Callable[[Path], Place]:
    """Return a function that makes a place whose datastore is in a folder."""
    return lambda folder: Place(folder, shared | {"METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder)})


@pytest.fixture
def place(new_place: Callable[[Path], Place], tmp_path: Path) -> Place:
    """Return a place of this test alone."""
    return new_place(tmp_path)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Place], object]]:
    """Return a function that gives the latest run of a flow at a place, as Metaflow's client sees it."""
    import metaflow
    from metaflow.plugins.datastores.local_storage import LocalStorage

    def latest_run(name: str, place: Place) -> object:
        monkeypatch.setattr(LocalStorage, "SYSROOT_VAR", str(place.folder))
        metaflow.metadata(f"local@{place.folder}")
        metaflow.namespace(None)
        return metaflow.Flow(name).latest_run

    yield latest_run
    LocalStorage.datastore_root = None


@pytest.fixture(scope="session")
def engine() -> str:
    """Return the container engine that flows run on; skip where it does not work."""
    try:
        open_engine(ENGINE, Settings.load()).check()
    except ContainerError as error:
        pytest.skip(f"{error} (METAFLOW_PREBUILT_CONTAINER_ENGINE chooses docker, podman or rootless)")
    return ENGINE
