"""Images of the rendered Dockerfile, built by real engines, are those of the native builder."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.bake import BakedImage, Baker, StepImage
from prebuilt.core.build_service import DockerBuildService, DockerfileBuildOptions
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX
from prebuilt.docker import LocalDockerBuildService
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.lock.resolver import LockResolver
from prebuilt.lock.stage.materials import LockMaterials
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.open import open_repository
from prebuilt.oci.registry import RepositoryRegistry
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.engines.buildkit import BuildKit
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.image_tree import Tree, subtree, tree_differences
from prebuilt.testing.installed_wheel import installed_wheel
from prebuilt.testing.python_index import make_sdist
from prebuilt.testing.validate import inspect_image

KINDS = ["pypi", "conda", "mixed"]
XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


class OutsideBuilder(DockerBuildService):
    """A builder by the words of the published contract: it writes the context down and runs a command."""

    def __init__(self, folder: Path, command: Callable[[Path, str, str], list[list[str]]], **options: Any) -> None:
        self._folder, self._command, self._options = folder, command, options
        self.environ: Mapping[str, str] = {}
        self.contexts: list[list[str]] = []

    def build_and_push(
        self,
        dockerfile: str,
        context_files: dict[str, Any],
        image_tag: str,
        push_credentials: dict[str, Any],
        echo: Callable[..., None],
        target_platform: str | None = None,
    ) -> bool:
        """Run the commands; what they say is echoed."""
        context = self._folder / secrets.token_hex(4)
        self.contexts.append(sorted(context_files))
        for name, content in {"Dockerfile": dockerfile.encode(), **context_files}.items():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_bytes(content)
        for command in self._command(context, image_tag, target_platform or ""):
            done = subprocess.run(
                command, env={**os.environ, **self.environ}, capture_output=True, text=True, timeout=300, check=False
            )
            echo(done.stdout + done.stderr)
            if done.returncode:
                return False
        return True

    def dockerfile_build_options(self) -> DockerfileBuildOptions:
        """Return what it was made with."""
        return DockerfileBuildOptions(**self._options)


@dataclass(frozen=True, kw_only=True)
class Deployer:
    """Bakes the same requirements with any builder; locks are shared, so that they are the same.

    `index` is the test's; empty for that of the machine.
    """

    folder: Path
    host: str
    base: str
    channel: str
    index: str

    @property
    def settings(self) -> Settings:
        """Those of a machine of its own."""
        own = {"METAFLOW_PREBUILT_CACHE_DIR": str(self.folder / "cache")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("METAFLOW_")}
        if self.index:
            kept = {name: value for name, value in kept.items() if not name.startswith(("UV_", "PIP_"))}
            own["UV_DEFAULT_INDEX"] = self.index
        return Settings({**kept, **own}, {})

    def requirements(self, kind: str, platform: Platform, **changes: Any) -> Requirements:
        """Return what a kind of environment asks for."""
        parts: dict[str, dict[str, Any]] = {
            "conda": {"conda": {"greeter": "1.0", "prefixed": "", "linked": "", "large": ""}},
            "pypi": {"pypi": {"talker": "", "hefty": ""}},
        }
        chosen = parts["conda"] | parts["pypi"] if kind == "mixed" else parts[kind]
        asked = {"python": XY, "channels": (self.channel,), **chosen, **changes}
        if platform == ARM64:  # the channel has those for linux/amd64 only
            asked["conda"] = {
                name: spec for name, spec in asked.get("conda", {}).items() if name in {"greeter", "large"}
            }
        return Requirements(target=Target(platform=platform), **asked)

    def bake(self, builder: DockerBuildService, requirements: Requirements, name: str) -> BakedImage:
        """Return the image of `requirements` in a repository of its own."""
        settings, progress = self.settings, LineProgress(lambda _: None)
        documents = FolderDocuments(self.folder / "documents")
        resolver = LockResolver(settings)
        registry = RepositoryRegistry(f"{self.host}/{name}", settings=settings)
        baker = Baker(
            resolver=resolver,
            bases=BaseImageLookup(settings, documents, FolderDocuments(self.folder / "facts")),
            registry=registry,
            builder=builder,
            documents=documents,
            progress=progress,
            compression="gzip",
            has_bytecode=lambda xy: find_interpreter(xy) is not None,
            materials=LockMaterials(
                settings=settings, locks=Locks(resolver=resolver, documents=documents, progress=progress)
            ),
        )
        return baker.bake([StepImage(step="step", requirements=requirements, base_image=self.base)])["step"]


@pytest.fixture(scope="module")
def deployer(pantry: Any, registry_host: str, tmp_path_factory: pytest.TempPathFactory) -> Deployer:
    """A machine, with a base image for both platforms in the registry, and the tools of build stages in the index."""
    folder = tmp_path_factory.mktemp("deployer")
    for name in ("isal", "py-rattler"):
        pantry.index.add(installed_wheel(folder / "tools", name))
    base = push_base_image(open_repository(f"{registry_host}/stage-bases"), tag="both", platforms=[AMD64, ARM64])
    return Deployer(folder=folder, host=registry_host, base=base, channel=pantry.channel.url, index=pantry.index.url)


@pytest.fixture
def native(deployer: Deployer) -> NativeBuilder:
    """The native builder."""
    return NativeBuilder(deployer.settings)


@pytest.fixture
def by_buildkit(buildkit: BuildKit, tmp_path: Path) -> OutsideBuilder:
    """BuildKit, which uses nothing of an earlier build."""

    def commands(context: Path, tag: str, platform: str) -> list[list[str]]:
        options = {"context": "--local", "dockerfile": "--local", "platform": "--opt", "filename": "--opt"}
        values = {"context": context, "dockerfile": context, "platform": platform, "filename": "Dockerfile"}
        arguments = [word for name, option in options.items() for word in (option, f"{name}={values[name]}")]
        output = f"type=image,name={tag},push=true"
        head = [str(buildkit.buildctl), "--addr", buildkit.address, "build", "--frontend=dockerfile.v0", "--no-cache"]
        return [[*head, *arguments, "--progress=plain", "--output", output]]

    return OutsideBuilder(tmp_path, commands, buildkit_deferred_input_mounts=True)


@pytest.fixture
def by_docker(docker_oldest: Docker, tmp_path: Path) -> OutsideBuilder:
    """The classic builder of the oldest Docker Engine."""

    def commands(context: Path, tag: str, platform: str) -> list[list[str]]:
        docker = str(docker_oldest.programs / "docker")
        return [
            [docker, "build", "--network=host", "--no-cache", "--force-rm", f"--tag={tag}", str(context)],
            [docker, "push", tag],
        ]

    builder = OutsideBuilder(tmp_path, commands)
    builder.environ = {**docker_oldest.environ, "DOCKER_BUILDKIT": "0"}
    return builder


SERVICES = {"classic of 20.10": ("docker_oldest", "classic"), "buildkit of 28": ("docker_current", "buildkit")}


@pytest.fixture(params=list(SERVICES))
def by_service(request: pytest.FixtureRequest, deployer: Deployer) -> LocalDockerBuildService:
    """Our own builder ``docker``, by each of Docker's builders."""
    return service_of(deployer, request.getfixturevalue(SERVICES[request.param][0]), SERVICES[request.param][1])


def service_of(deployer: Deployer, docker: Docker, builder: str) -> LocalDockerBuildService:
    """Return the builder ``docker`` of a user of an engine."""
    own = {"METAFLOW_PREBUILT_DOCKER_BUILDER": builder, "METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK": "host"}
    return LocalDockerBuildService(Settings({**deployer.settings.environ, **docker.environ, **own}, {}))


def tree_of(image: BakedImage) -> Tree:
    """Return an image's files, those of its base among them; all have been read and checked."""
    repository, _, digest = image.reference.partition("@")
    return inspect_image(open_repository(repository), digest).tree


def assert_same_files(one: BakedImage, other: BakedImage) -> None:
    """Both have every file that the other has, of the same bytes."""
    tree = tree_of(one)
    assert len(subtree(tree, PREFIX)) > 10
    assert tree_differences(tree, tree_of(other)) == []


@pytest.mark.buildkit
@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_buildkit_makes_the_native_image(
    kind: str, platform: Platform, deployer: Deployer, native: NativeBuilder, by_buildkit: OutsideBuilder
) -> None:
    """File by file, for the machine's platform and for one that it cannot run."""
    requirements = deployer.requirements(kind, platform)
    name = f"{kind}-{platform.architecture}"
    assert_same_files(
        deployer.bake(native, requirements, f"native/{name}"),
        deployer.bake(by_buildkit, requirements, f"buildkit/{name}"),
    )


@pytest.mark.docker
def test_an_outside_builder_makes_the_native_image(
    deployer: Deployer, native: NativeBuilder, by_docker: OutsideBuilder
) -> None:
    """File by file, with nothing that a builder of 2017 does not know."""
    requirements = deployer.requirements("mixed", AMD64)
    assert_same_files(
        deployer.bake(native, requirements, "native/mixed-amd64"),
        deployer.bake(by_docker, requirements, "classic/mixed"),
    )


@pytest.mark.docker
@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_builder_docker_makes_the_native_image(
    kind: str,
    platform: Platform,
    deployer: Deployer,
    native: NativeBuilder,
    by_service: LocalDockerBuildService,
    request: pytest.FixtureRequest,
) -> None:
    """File by file, by the classic builder and by the engine's BuildKit, for a platform that the machine cannot run, too."""
    requirements = deployer.requirements(kind, platform)
    name = f"{kind}-{platform.architecture}"
    by = request.node.callspec.params["by_service"].replace(" ", "-")
    assert_same_files(
        deployer.bake(native, requirements, f"native/{name}"),
        deployer.bake(by_service, requirements, f"docker/{by}/{name}"),
    )


@pytest.mark.buildkit
def test_packages_of_the_machines_own_index_are_fetched_in_the_build(
    deployer: Deployer, native: NativeBuilder, by_buildkit: OutsideBuilder, tmp_path: Path
) -> None:
    """With its certificates: the context has neither packages nor tools, and the image is the native one."""
    elsewhere = replace(deployer, folder=tmp_path / "elsewhere", index="")
    requirements = elsewhere.requirements("pypi", AMD64, pypi={"six": "1.17.0", "markupsafe": "3.0.2"})
    image = elsewhere.bake(by_buildkit, requirements, "fetched/buildkit")
    [names] = by_buildkit.contexts
    if any(name.startswith("packages/") for name in names):
        pytest.skip("not asked of this machine: only this user can read its package index, so packages travel")
    assert not any(name.startswith("tools/") for name in names)
    assert_same_files(elsewhere.bake(native, requirements, "fetched/native"), image)


def assert_one_layer_differs(builder: DockerBuildService, deployer: Deployer, name: str) -> None:
    """Of two builds all layers but that of the changed package have the same digests."""
    reports = []
    for version in ("1.0", "1.1"):
        asked = deployer.requirements("mixed", AMD64, conda={"greeter": version, "prefixed": "", "large": ""})
        repository, _, digest = deployer.bake(builder, asked, f"{name}/{version}").reference.partition("@")
        reports.append(inspect_image(open_repository(repository), digest))
    one, other = ([(layer.diff_id, layer.descriptor.digest) for layer in report.layers] for report in reports)
    assert len(one) == len(other) > 4
    assert [len(set(each) - set(of_other)) for each, of_other in ((one, other), (other, one))] == [1, 1]


@pytest.mark.buildkit
def test_a_changed_package_leaves_the_other_layers_of_buildkit(deployer: Deployer, by_buildkit: OutsideBuilder) -> None:
    """Also on another machine, where nothing is cached."""
    assert_one_layer_differs(by_buildkit, deployer, "changed/buildkit")


@pytest.mark.docker
def test_a_changed_package_leaves_the_other_layers_of_the_classic_builder(
    deployer: Deployer, by_docker: OutsideBuilder
) -> None:
    """All are made again, and what comes out is what was pushed before."""
    assert_one_layer_differs(by_docker, deployer, "changed/classic")


@pytest.mark.docker
def test_a_changed_package_leaves_the_other_layers_of_the_engines_buildkit(
    deployer: Deployer, docker_current: Docker
) -> None:
    """What the engine has cached is used, and is pushed as it was."""
    assert_one_layer_differs(service_of(deployer, docker_current, "buildkit"), deployer, "changed/engine")


@pytest.mark.docker
def test_a_package_that_was_built_here_is_in_the_image(
    deployer: Deployer, native: NativeBuilder, docker_current: Docker, pantry: Any, tmp_path: Path
) -> None:
    """An sdist's wheel was built when it was locked, and travels: the image is the native one."""
    pantry.index.add(make_sdist(tmp_path, "crafted", "1.0"))
    requirements = deployer.requirements("pypi", AMD64, pypi={"crafted": "", "talker": ""})
    image = deployer.bake(service_of(deployer, docker_current, "buildkit"), requirements, "sdists/docker")
    assert any(path.endswith("/crafted.py") for path in tree_of(image))
    [built_here] = [package for package in image.spec.lock.packages if package.name == "crafted"]
    assert built_here.url == ""
    assert_same_files(deployer.bake(native, requirements, "sdists/native"), image)
