"""What images of the native builder are made of, and the bakery that makes them: each bake is a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.bake import BakedImage, Baker, StepImage
from prebuilt.core.build_service import DockerBuildService
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.image_registry import ImageRegistry
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import ImageSpec
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.lock.resolver import LockResolver
from prebuilt.lock.stage.materials import LockMaterials
from prebuilt.native.builder import NativeBuilder
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.client import RegistryRepository
from prebuilt.oci.containers import ContainerRun, Engine
from prebuilt.oci.growing_blob import GrowingBlob
from prebuilt.oci.image import descriptor_of
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import parse_reference
from prebuilt.oci.registry import RepositoryRegistry
from prebuilt.oci.repository import Repository
from prebuilt.testing.base_image import make_base_image, push_base_image
from prebuilt.testing.conda_channel import CondaChannel
from prebuilt.testing.conda_package import CondaPackageSpec, text_file
from prebuilt.testing.conda_samples import sample_channel
from prebuilt.testing.conformance.materials import Materials, push_small_base
from prebuilt.testing.debian_base import push_debian_base
from prebuilt.testing.engines.buildkit import BuildKit, buildkit_daemon
from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.kaniko import push_kaniko_image
from prebuilt.testing.engines.kubernetes.cluster import KubernetesCluster, kubernetes_cluster
from prebuilt.testing.engines.kubernetes.namespace import Namespace, cluster_namespace
from prebuilt.testing.engines.process import find_program
from prebuilt.testing.engines.registry import distribution_registry
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.image_tree import Tree
from prebuilt.testing.installed_wheel import installed_wheel
from prebuilt.testing.mounts import mounts_with
from prebuilt.testing.processes import commands_with
from prebuilt.testing.python_index import PackageIndex, make_wheel
from prebuilt.testing.validate import ImageReport, inspect_image, validate
from prebuilt.testing.waiting import eventually_gone

PROGRAM = Path(__file__).with_name("bake_one.py")
XY = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True, kw_only=True)
class Baked:
    """An image that a bake gave."""

    reference: str
    digest: str
    reused: bool
    bytecode: bool
    lock: Lock
    said: str

    @property
    def repository(self) -> Repository:
        """Where it is."""
        return open_repository(parse_reference(self.reference).repository)

    def validate(self, base: ImageReport | None = None) -> ImageReport:
        """Return the report of the image, all of it read and checked."""
        return validate(self.repository, self.digest, base=base, platform=self.lock.target.platform)


@dataclass(frozen=True, kw_only=True)
class Bakery:
    """Orders bakes. `folder` holds what a machine would: caches and home; `repository` is where images go."""

    folder: Path
    repository: str
    base: str
    python: str = sys.executable
    platform: str = "linux/amd64"
    compression: str = "zstd"
    prefix: Sequence[str] = ()
    builder: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def elsewhere(self, name: str, **changes: Any) -> Bakery:
        """Return a bakery with a folder of its own beside this one's: a machine with empty caches."""
        folder = self.folder.with_name(name)
        folder.mkdir(exist_ok=True)
        return replace(self, folder=folder, **changes)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a bake: no settings but those of the test."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "PYTHON"))}
        own = {
            "METAFLOW_HOME": str(self.folder / "metaflow"),
            "METAFLOW_PREBUILT_CACHE_DIR": str(self.folder / "cache"),
            "DOCKER_CONFIG": str(self.folder / "docker"),
        }
        return {**kept, **own, **self.variables}

    @property
    def settings(self) -> Settings:
        """The settings of a bake."""
        return Settings(self.environ, {})

    def command(self, **asked: Any) -> list[str]:
        """Return the command that bakes what is asked for."""
        order = {
            "repository": self.repository,
            "base": self.base,
            "platform": self.platform,
            "compression": self.compression,
            "asked": {"python": XY, **asked},
            **({"builder": self.builder} if self.builder else {}),
        }
        return [*self.prefix, self.python, "-W", "error", str(PROGRAM), json.dumps(order)]

    def start(self, **asked: Any) -> subprocess.Popen[str]:
        """Start a bake."""
        return subprocess.Popen(
            self.command(**asked),
            env=self.environ,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> Baked:
        """Wait for a bake and return what came out; what it said is part of a failure."""
        try:
            out, said = process.communicate(timeout=900)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, said
        result = json.loads(out)
        return Baked(**{**result, "lock": Lock.parse(result["lock"].encode()), "said": said})

    def bake(self, **asked: Any) -> Baked:
        """Bake what is asked for."""
        return self.finish(self.start(**asked))


@dataclass(frozen=True, kw_only=True)
class Pantry:
    """What environments are made of: a channel of conda packages, and an index of wheels that is served."""

    channel: CondaChannel
    index: PackageIndex
    folder: Path

    def add_wheel(self, name: str, version: str = "1.0", *, size_bytes: int = 0, **wheel: Any) -> Path:
        """Make a wheel of the module `name`, with noise of `size_bytes`, and have the index serve it; return its file."""
        files = {f"{name}/__init__.py": f"__version__ = {version!r}\n", **wheel.pop("files", {})}
        if size_bytes:
            noise = random.Random(f"{name} {version}").randbytes(size_bytes)  # noqa: S311 - it must not compress
            files[f"{name}/noise.bin"] = noise
        path = make_wheel(self.folder / f"{name}-{version}", name, version, files=files, **wheel)
        self.index.add(path)
        return path


def output(engine: Engine, image: str, *command: str) -> str:
    """Run a command in an image; return what it printed, which is part of the failure where it fails."""
    import tempfile

    with tempfile.TemporaryFile() as stdout:
        code = engine.run(ContainerRun(image=image, command=command), stdout=stdout, stderr=stdout)
        stdout.seek(0)
        text = stdout.read().decode()
    assert code == 0, text
    return text


@pytest.fixture(scope="session")
def run_in_image() -> Any:
    """Return :func:`output`, since test files import nothing of each other."""
    return output


@pytest.fixture
def push_while_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Repository], None]:
    """Writes a blob piece by piece, and checks that the repository's registry took it meanwhile, and not afterwards."""

    def push(repository: Repository) -> None:
        monkeypatch.setattr(RegistryRepository, "push_blob", lambda *_: pytest.fail("it was pushed once it was whole"))
        pieces = [random.Random(seed).randbytes(3_000_001) for seed in range(4)]  # noqa: S311 - any bytes that do not repeat
        descriptor = descriptor_of(b"".join(pieces), "application/octet-stream")
        with ThreadPoolExecutor(1) as thread, GrowingBlob(tmp_path / "growing") as blob:
            pushing = thread.submit(repository.push_growing_blob, blob)
            for piece in pieces:
                blob.write(piece)
                time.sleep(0.1)
            blob.finish(descriptor)
            pushing.result()
        with repository.open_blob(descriptor) as chunks:
            assert b"".join(chunks) == b"".join(pieces)

    return push


@pytest.fixture
def materials(registry: RepositoryRegistry, tmp_path: Path) -> Iterator[Materials]:
    """Return materials whose target is the repository of the test's registry; the base is in a layout."""
    with PackageIndex().serving() as index:
        yield Materials(
            index=index,
            folder=tmp_path / "wheels",
            target=open_repository(registry.repository, registry.credentials_source),
            base=push_small_base(open_repository(f"oci:{tmp_path / 'base'}")),
        )


@pytest.fixture
def build(registry: RepositoryRegistry, materials: Materials, tmp_path: Path) -> Callable[..., ImageSpec]:
    """Return what bakes wheels as a new machine would, asking the registry as the bake does; it returns the spec."""
    made: list[None] = []

    def build(*wheels: Wheel) -> ImageSpec:
        made.append(None)
        spec, cache = materials.spec(*wheels), str(tmp_path / f"{len(made)}")
        settings = Settings({**Settings.load().environ, "METAFLOW_PREBUILT_CACHE_DIR": cache}, {})
        built = materials.deploy(NativeBuilder(settings), registry, spec)
        assert built is not None
        validate(materials.target, built.digest)
        return spec

    return build


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base image with the Python of this process, in a layout."""
    return make_base_image(tmp_path_factory.mktemp("base") / "layout", tag="python")


@pytest.fixture(scope="session")
def base_report(base_image: str) -> ImageReport:
    """The base image, read and checked."""
    reference = parse_reference(base_image)
    return validate(open_repository(reference.repository), reference.identifier)


@pytest.fixture(scope="session")
def pantry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pantry]:
    """The sample channel with more packages, and an index with wheels of every shape."""
    folder = tmp_path_factory.mktemp("pantry")
    channel = sample_channel(folder / "channel")
    channel.add(_with_bytecode(folder / "bytecode"))
    with PackageIndex().serving() as index:
        pantry = Pantry(channel=channel, index=index, folder=folder / "wheels")
        pantry.add_wheel(
            "talker",
            files={"talker/cli.py": "def main() -> None:\n    print('talker talks')\n", "talker/tests/test_it.py": ""},
            dist_info={"entry_points.txt": "[console_scripts]\ntalk = talker.cli:main\n"},
            requires=["listener>=1"],
        )
        pantry.add_wheel("listener", "1.2")
        pantry.add_wheel("hefty", size_bytes=4_000_000)
        yield pantry


@dataclass(frozen=True, kw_only=True)
class Deployer:
    """A machine that bakes with any builder, in this process, and whose package index is the test's. Its locks are kept.

    `variables` are settings of its own; `said` is what it shows.
    """

    folder: Path
    host: str
    base: str
    channel: str
    index: PackageIndex
    variables: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """Those of the machine."""
        own = {"METAFLOW_PREBUILT_CACHE_DIR": str(self.folder / "cache"), "UV_DEFAULT_INDEX": self.index.url}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAFLOW_", "UV_", "PIP_"))}
        return Settings({**kept, **own, **self.variables}, {})

    def bake(
        self,
        builder: DockerBuildService,
        name: str,
        *,
        platform: Platform | None = None,
        registry: ImageRegistry | None = None,
        **asked: Any,
    ) -> BakedImage:
        """Return the image of an environment, in a repository of its own, or in somebody's `registry`."""
        [image] = self.bake_all(builder, name, platforms=(platform or Platform.host(),), registry=registry, **asked)
        return image

    def bake_all(
        self,
        builder: DockerBuildService,
        name: str,
        *,
        platforms: Sequence[Platform],
        registry: ImageRegistry | None = None,
        **asked: Any,
    ) -> list[BakedImage]:
        """Return the images of an environment for several platforms, as one deploy bakes them."""
        progress = LineProgress(self.said.append)
        documents = FolderDocuments(self.folder / "documents")
        resolver = LockResolver(self.settings)
        baker = Baker(
            resolver=resolver,
            bases=BaseImageLookup(self.settings, documents, FolderDocuments(self.folder / "facts")),
            registry=registry or RepositoryRegistry(f"{self.host}/{name}", settings=self.settings),
            builder=builder,
            documents=documents,
            progress=progress,
            has_bytecode=lambda xy: find_interpreter(xy) is not None,
            materials=LockMaterials(
                settings=self.settings, locks=Locks(resolver=resolver, documents=documents, progress=progress)
            ),
        )
        wanted = {"python": XY, "channels": (self.channel,), **asked}
        steps = [
            StepImage(
                step=f"step-{number}",
                requirements=Requirements(target=Target(platform=platform), **wanted),
                base_image=self.base,
            )
            for number, platform in enumerate(platforms)
        ]
        baked = baker.bake(steps)
        return [baked[step.step] for step in steps]

    def report(self, image: BakedImage) -> ImageReport:
        """Return what an image is, every digest of it checked."""
        repository, _, digest = image.reference.partition("@")
        return inspect_image(open_repository(repository, settings=self.settings), digest)


@pytest.fixture(scope="session")
def new_deployer(pantry: Pantry, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Deployer]:
    """Make a deployer of `host`, `base` and `variables`; its index has the tools of build stages."""
    tools = tmp_path_factory.mktemp("tools")
    for name in ("isal", "py-rattler"):
        pantry.index.add(installed_wheel(tools, name))

    def make(**parts: Any) -> Deployer:
        folder = tmp_path_factory.mktemp("deployer")
        return Deployer(folder=folder, channel=pantry.channel.url, index=pantry.index, **parts)

    return make


def _with_bytecode(folder: Path) -> CondaPackageSpec:
    """Return a package as most of conda's are: with bytecode that is bound to the time of its source."""
    import py_compile

    from prebuilt.core.tree import BytesContent, FileEntry

    folder.mkdir()
    (folder / "compiled.py").write_text("VALUE = 42\n")
    py_compile.compile(
        str(folder / "compiled.py"),
        str(folder / "compiled.pyc"),
        f"/opt/prebuilt/env/lib/python{XY}/site-packages/compiled/__init__.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP,
    )
    place = f"lib/python{XY}/site-packages/compiled"
    pyc = f"{place}/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    return CondaPackageSpec(
        name="compiled",
        version="1.0",
        files=(
            text_file(f"{place}/__init__.py", "VALUE = 42\n"),
            FileEntry(path=pyc, content=BytesContent((folder / "compiled.pyc").read_bytes())),
        ),
        depends=(f"python {XY}.*",),
    )


@pytest.fixture(scope="session")
def make_bakery(base_image: str) -> Callable[..., Bakery]:
    """Return what opens a bakery: its folder, its repository, and other fields of it."""

    def make(folder: Path, repository: str, **fields: Any) -> Bakery:
        folder.mkdir()
        return Bakery(**{"folder": folder, "repository": repository, "base": base_image, **fields})

    return make


@pytest.fixture
def bakery(tmp_path: Path, make_bakery: Callable[..., Bakery]) -> Bakery:
    """A bakery that bakes into a layout of the test's own."""
    return make_bakery(tmp_path / "machine", f"oci:{tmp_path / 'images'}")


@pytest.fixture(scope="session")
def docker_oldest() -> Iterator[Docker]:
    """A Docker Engine of Debian stable's release, whose containers use the machine's network."""
    with wanted_engine(), docker_engine("installed", buildx=True) as docker:
        yield docker


@pytest.fixture(scope="session")
def docker_current() -> Iterator[Docker]:
    """A Docker Engine of the current release, whose containers use the machine's network."""
    with wanted_engine(), docker_engine("current", buildx=True) as docker:
        yield docker


@pytest.fixture(scope="session")
def docker_containerd() -> Iterator[Docker]:
    """A Docker Engine of the current release whose images are containerd's, and whose containers use the machine's network."""
    with wanted_engine(), docker_engine("current", buildx=True, containerd_images=True) as docker:
        yield docker


@pytest.fixture(scope="session")
def docker_bridged() -> Iterator[Docker]:
    """A Docker Engine of the current release, whose containers are on a bridge."""
    with wanted_engine(), docker_engine("current", bridge=True, buildx=True) as docker:
        yield docker


@pytest.fixture(scope="session", params=["oldest", "current"])
def any_docker(request: pytest.FixtureRequest) -> Docker:
    """Each release in turn."""
    docker: Docker = request.getfixturevalue(f"docker_{request.param}")
    return docker


@pytest.fixture(scope="session")
def registry_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``127.0.0.1:port`` of a registry that all engines here push to and pull from."""
    with wanted_engine(), distribution_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def buildkit(registry_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildKit]:
    """A BuildKit daemon that pushes to the registry."""
    with wanted_engine(), buildkit_daemon(tmp_path_factory.mktemp("buildkit"), registry=registry_host) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def cluster() -> Iterator[KubernetesCluster]:
    """A Kubernetes of one node, with a registry that the test, the node and the pods reach by the same address."""
    with wanted_engine(), kubernetes_cluster() as cluster:
        yield cluster
    eventually_gone(lambda: list(_left_of(cluster)), every_s=0.1)


def _left_of(cluster: KubernetesCluster) -> Iterator[str]:
    """Yield what a cluster that has stopped left on the machine."""
    folder = str(cluster.folder)
    yield from commands_with(folder)
    yield from mounts_with(folder)
    cgroups = Path("/sys/fs/cgroup")
    yield from (str(path) for path in (cgroups / "kubepods", *cgroups.glob("*/kubepods")) if path.exists())
    program = find_program("iptables-save", brought_by="apt-get install iptables")
    rules = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    yield from (line for line in rules.splitlines() if cluster.bridge.name in line)
    files = (Path("/sys/class/net") / cluster.bridge.name, cluster.folder)
    yield from (str(path) for path in files if path.exists())


@pytest.fixture
def kube_namespace(cluster: KubernetesCluster) -> Iterator[Namespace]:
    """A namespace of this test alone."""
    with cluster_namespace(cluster) as namespace:
        yield namespace


@pytest.fixture(scope="session")
def kaniko_image(cluster: KubernetesCluster) -> str:
    """An image of Kaniko's executor in the cluster's registry, by digest."""
    with wanted_engine():
        return push_kaniko_image(cluster.repository("kaniko"))


@pytest.fixture(scope="session")
def cluster_base(cluster: KubernetesCluster) -> str:
    """A base image with the Python of this process in ``/usr/local``, in the cluster's registry."""
    return push_base_image(cluster.repository("bases"), tag="python", platforms=[Platform.host()])


@pytest.fixture(scope="session")
def python_base(registry_host: str) -> str:
    """A base image with the Python of this process in ``/usr/local``, in the registry that the engines reach."""
    repository = open_repository(f"{registry_host}/bases")
    return push_base_image(repository, tag="python", platforms=[Platform.host()])


@pytest.fixture(scope="session")
def debian_base(registry_host: str) -> str:
    """A base image of Debian with its own Python, for amd64 and arm64, in the registry that the engines reach."""
    platforms = [Platform.parse("linux/amd64"), Platform.parse("linux/arm64")]
    with wanted_engine():
        return push_debian_base(open_repository(f"{registry_host}/bases"), tag="debian", platforms=platforms)


@pytest.fixture
def two_stages(python_base: str, debian_base: str, tmp_path: Path) -> Path:
    """A context whose first stage runs Python on the machine's platform, and whose last stage, a copy, may have any."""
    folder = tmp_path / "two-stages"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"FROM {python_base} AS build\n"
        """RUN python3 -c "import ssl, urllib.request; open('/made', 'w').write('made by Python')"\n"""
        f"FROM {debian_base}\n"
        "COPY --from=build /made /opt/made\n"
    )
    return folder


@pytest.fixture(scope="session")
def pushed_tree() -> Callable[..., Tree]:
    """Return what reads the files of an image that any builder pushed; contents are checked, our rules for layers are not."""

    def tree(repository: str, tag: str, *, platform: Platform | None = None) -> Tree:
        return inspect_image(open_repository(repository), tag, platform=platform).tree

    return tree
