"""Backends of another distribution, installed from its wheel, deploy flows alone and together, in both published forms."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.errors import ContainerError
from prebuilt.core.settings import Settings
from prebuilt.oci.containers import open_engine
from prebuilt.oci.open import open_repository
from prebuilt.testing.conformance.materials import push_runnable_base
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.validate import validate
from tools.packages import ROOT, all_packages, closure
from tools.wheels import Built

EXAMPLE = ROOT / "tests" / "example_backend"
HERE = Path(__file__).parent

OF_02 = """
from metaflow_extensions.prebuilt.plugins.conda.build_service import DockerBuildService
from metaflow_extensions.prebuilt.plugins.conda.image_registry import ImageRegistry

class Builder(DockerBuildService):
    def build_and_push(self, dockerfile, context_files, image_tag, push_credentials, echo):
        echo("the disk is full", err=True, nl=False)
        return False

class Registry(ImageRegistry):
    def image_tag(self, env_id):
        return f"registry.example/flows:v28-{env_id.req_id}_{env_id.full_id}"

    def push_credentials(self):
        return {}

    def pull_config(self, pull_tag):
        return {"image_pull_policy": "Always", "image_pull_secrets": "one-secret", "unheard_of": 1}
"""


@pytest.fixture(scope="module")
def interpreter(built: dict[str, Built], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with our wheels and those of two outside distributions."""
    folder = tmp_path_factory.mktemp("outside")
    python = folder / "environment" / "bin" / "python"
    packages = all_packages()
    ours = [built[each.short].wheel for each in closure([packages["metaflow"]], packages.values())]
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder / "environment"], check=True)
    outside = [_wheel(EXAMPLE, folder), _wheel(_of_02(folder / "of-02"), folder)]
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *ours, *outside], check=True)
    return python


def _wheel(project: Path, folder: Path) -> Path:
    out = folder / "dist" / project.name
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", out, project], check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def _of_02(folder: Path) -> Path:
    """Write a distribution as one of 2025: setuptools, the published import paths, five arguments."""
    folder.mkdir()
    (folder / "of_02.py").write_text(OF_02)
    (folder / "setup.cfg").write_text(
        "[metadata]\nname = of-02\nversion = 1\n[options]\npy_modules = of_02\n[options.entry_points]\n"
        "metaflow_prebuilt.build_services =\n    of-02 = of_02:Builder\n"
        "metaflow_prebuilt.image_registries =\n    of-02 = of_02:Registry\n"
    )
    (folder / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\n')
    return folder


@dataclass(frozen=True)
class Deployment:
    """What a deployment printed, on both streams, and how it ended."""

    text: str
    said: str
    code: int

    @property
    def attributes(self) -> dict[str, Any]:
        """What the step's decorator holds afterwards."""
        assert self.code == 0, self.said
        found: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        return found


@dataclass(frozen=True)
class Site:
    """A machine to deploy from, with a docker command that records, and a registry that everybody reaches."""

    python: Path
    folder: Path
    server: InMemoryRegistry

    @property
    def record(self) -> Path:
        """Where the docker command keeps what it was told."""
        return self.folder / "record"

    @property
    def builds(self) -> list[Path]:
        """Folders that were built, in their order."""
        return sorted(path for path in self.record.glob("build-*") if path.is_dir())

    def deploy(self, builder: str, registry: str, **variables: str) -> Deployment:
        """Deploy the flow with the two backends, by name."""
        return self.start([HERE / "outside_deploy.py"], builder, registry, **variables)

    def start(self, program: Sequence[str | Path], builder: str, registry: str, **variables: str) -> Deployment:
        """Run a program of Python where the two backends are selected."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW", "PYTHON"))}
        settings = {
            "HOME": str(self.folder),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "RECORD": str(self.record),
            "SITE_REPOSITORY": self.server.repository("site/flows"),
            "METAFLOW_HOME": str(self.folder / "metaflow"),
            "METAFLOW_USER": "somebody",
            "METAFLOW_PREBUILT_BUILD_SERVICE": builder,
            "METAFLOW_PREBUILT_IMAGE_REGISTRY": registry,
            "METAFLOW_PREBUILT_REGISTRY": self.server.repository("ours/flows"),
            "METAFLOW_PREBUILT_BASE_IMAGE": self.server.repository("base:base"),
            "METAFLOW_PREBUILT_CACHE_DIR": str(self.folder / "cache"),
            "METAFLOW_PREBUILT_CONTAINER_ENGINE": "rootless",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(self.folder),
        }
        done = subprocess.run(
            [self.python, *program],
            cwd=self.folder,
            env={**kept, **settings, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Deployment(done.stdout, done.stderr, done.returncode)


@pytest.fixture(scope="module")
def kept_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache of all sites, so that each package is downloaded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(
    interpreter: Path, kept_cache: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return a site at which nothing was deployed yet."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "fake_docker.py"} "$@"\n')
    docker.chmod(0o755)
    (tmp_path / "record").mkdir()
    (tmp_path / "cache").symlink_to(kept_cache)
    with InMemoryRegistry() as server:
        base = open_repository(server.repository("base"))
        push_runnable_base(base, tmp_path_factory.getbasetemp() / "runnable-base")
        yield Site(interpreter, tmp_path, server)


def test_an_outside_builder_pushes_to_our_registry(site: Site) -> None:
    """It is given everything: each file that the Dockerfile names is in the folder that it builds."""
    attributes = site.deploy("site", "oci").attributes
    [folder] = site.builds
    dockerfile = (folder / "Dockerfile").read_text()
    named = re.findall(r"^COPY (?!--from)(\S+)", dockerfile, re.MULTILINE)
    assert named
    assert all((folder / name).exists() for name in named)
    assert any((folder / "layers").iterdir())
    options = json.loads((folder.parent / f"{folder.name}.json").read_text())
    assert options[:2] == ["--platform", "linux/amd64"]
    tagged = options[-1]
    assert tagged.startswith(site.server.repository("ours/flows:v1-"))
    assert attributes["image"].startswith(site.server.repository("ours/flows@sha256:"))
    assert (
        open_repository(site.server.repository("ours/flows")).resolve(tagged.rpartition(":")[2]).digest
        in attributes["image"]
    )


def test_our_builder_pushes_to_an_outside_registry(site: Site) -> None:
    """The native builder knows the digest, so the step is pinned to it, though the registry cannot be asked."""
    attributes = site.deploy("native", "site").attributes
    repository, _, digest = attributes["image"].partition("@")
    assert repository == site.server.repository("site/flows")
    assert validate(open_repository(repository), digest).config.labels["metaflow-prebuilt.format"]
    assert attributes["image_pull_policy"] == "IfNotPresent"
    assert attributes["image_pull_secrets"] == ["site-pull"]
    assert site.builds == []


def test_without_an_answer_each_deploy_builds(site: Site) -> None:
    """A registry that only names images has its tag on the decorator, and what it wants set beside it."""
    first, second = (site.deploy("site", "site").attributes for _ in range(2))
    assert first == second
    assert first["image"].startswith(f"{site.server.repository('site/flows')}:flow-linux-64-")
    assert (first["image_pull_policy"], first["image_pull_secrets"]) == ("IfNotPresent", ["site-pull"])
    assert len(site.builds) == 2
    assert (site.record / "pushed").read_text().split() == [first["image"]] * 2


def test_with_an_answer_what_is_there_is_not_built(site: Site) -> None:
    """image_exists is enough to build once."""
    first, second = (site.deploy("site", "site-asked") for _ in range(2))
    assert first.attributes == second.attributes
    assert len(site.builds) == 1
    assert "image is there" in second.said


def test_a_failed_build_shows_what_the_builder_said(site: Site) -> None:
    """Line by line as it comes, and at the end in one message that names the builder; no task would start."""
    failed = site.deploy("site", "site", BROKEN="1")
    assert failed.code != 0
    assert "start | Step 1/9 : FROM base" in failed.said
    message = failed.said.rpartition("tried to ")[2]
    assert re.search(r"with SiteBuildService at .*it returned False; see what it said", message)
    assert "no space left on device" in message


def test_classes_of_02_work_as_they_are(site: Site) -> None:
    """Five arguments, an echo with keywords, False, the published import paths, one secret as a text."""
    failed = site.deploy("of-02", "of-02")
    assert re.search(r"with Builder at registry\.example/flows:v28-.*it returned False", failed.said)
    assert "start | the disk is full" in failed.said  # as it came
    assert "the disk is full" in failed.said.rpartition("tried to ")[2]
    attributes = site.deploy("site", "of-02").attributes
    assert attributes["image"].startswith("registry.example/flows:v28-")
    assert (attributes["image_pull_policy"], attributes["image_pull_secrets"]) == ("Always", ["one-secret"])


def test_a_flow_runs_in_images_of_an_outside_registry(site: Site) -> None:
    """The whole way, from a flow's command line to its tasks, in an image that the outside registry named."""
    try:
        open_engine("rootless", Settings({}, {})).check()
    except ContainerError as error:
        pytest.skip(str(error))
    flow = ROOT / "tests" / "integration" / "flows" / "everyday.py"
    ran = site.start([flow, "--environment=prebuilt", "run", "--with", "container"], "native", "site")
    assert ran.code == 0, ran.text + ran.said
    assert "[1, 4, 9]" in ran.text + ran.said
    assert site.server.count("PUT", "site/flows/manifests/flow-linux-64-") == 1
