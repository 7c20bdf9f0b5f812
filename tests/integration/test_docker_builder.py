"""The builder ``docker`` on real engines: the oldest and the current release, both of their builders, and Podman."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.credentials import Credentials
from prebuilt.core.dockerfile import PROGRAM, BuildMaterials
from prebuilt.core.errors import BuildError, CancelledError, PrebuiltError, UnauthorizedError
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import ImageProgress
from prebuilt.core.requirements import Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX, BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent
from prebuilt.docker import LocalDockerBuildService
from prebuilt.oci.open import open_repository
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.engines.docker import Docker, docker_engine
from prebuilt.testing.engines.podman import podman_storage
from prebuilt.testing.engines.process import EngineError, running
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.image_tree import subtree
from prebuilt.testing.processes import commands_with
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.validate import inspect_image
from prebuilt.testing.waiting import eventually_gone

pytestmark = pytest.mark.docker

XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
VERSION = ".".join(map(str, sys.version_info[:3]))
PLATFORMS = ("linux/amd64", "linux/arm64")
HOST_IS_AMD64 = str(Platform.host()) == "linux/amd64"

# What the build stage runs in these tests: it makes a file for each layer, whatever is in it.
PROGRAM_TEXT = """
import os, pathlib, platform, time
root = pathlib.Path("/prebuilt")
print("runs on", platform.machine(), flush=True)
for name, seconds in (("slow", 600), ("slower", 5)):
    if (root / name).exists() and list((root / "layers").glob("*.json")):
        print("sleeping now", flush=True)
        time.sleep(seconds)
if (root / "chatty").exists():
    print("\\\\n".join(f"line {number}" for number in range(80)), flush=True)
    raise SystemExit("gave up")
for source in sorted((root / "layers").glob("*.json")):
    path = root / "made" / source.stem / "opt/prebuilt/env/share" / source.stem
    if not path.exists():
        path.parent.mkdir(parents=True)
        path.write_text("made by " + platform.machine())
"""


def program() -> bytes:
    """Return `PROGRAM_TEXT` as a zip application."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), PROGRAM_TEXT)
    return buffer.getvalue()


@dataclass(frozen=True)
class SmallMaterials:
    """Gathers the program and marks that change what it does; `image` is what it runs in, if that is not the base."""

    marks: Mapping[str, str]
    image: str | None = None

    @contextlib.contextmanager
    def gather(
        self, spec: ImageSpec, progress: ImageProgress, *, check: Callable[[], None]
    ) -> Iterator[BuildMaterials]:
        """Give them."""
        files = {PROGRAM: program(), **{name: text.encode() for name, text in self.marks.items()}}
        yield BuildMaterials(files={name: BytesContent(data) for name, data in files.items()}, image=self.image)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """An engine, one of its builders, and what they need."""

    docker: Docker
    builder: str
    registry: str
    base_repository: str
    temporary: Path
    network: str = "host"

    def settings(self, **values: str) -> Settings:
        """Return the settings of a user of the engine."""
        own = {
            **os.environ,
            **self.docker.environ,
            "TMPDIR": str(self.temporary),
            "METAFLOW_PREBUILT_DOCKER_BUILDER": self.builder,
            "METAFLOW_PREBUILT_DOCKER_BUILD_NETWORK": self.network,
        }
        return Settings(own | {f"METAFLOW_PREBUILT_{name}": value for name, value in values.items()}, {})

    def service(self, **values: str) -> LocalDockerBuildService:
        """Return a builder."""
        return LocalDockerBuildService(self.settings(**values))

    def base(self, platform: str) -> BaseImage:
        """Return the base image for `platform`."""
        index = open_repository(self.base_repository).get_manifest("base")
        [digest] = [
            entry["digest"]
            for entry in json.loads(index.data)["manifests"]
            if entry["platform"]["architecture"] == platform.split("/")[1]
        ]
        return BaseImage(
            reference=f"{self.base_repository}:base",
            repository=self.base_repository,
            digest=digest,
            platform=Platform.parse(platform),
            layer_count=1,
            glibc="2.36",
            python=BasePython(path="/usr/local/bin/python3", version=VERSION),
            index_digest=index.descriptor.digest,
        )

    def request(
        self, *, platform: str = "linux/amd64", name: str = "one", marks: str = "", **fields: Any
    ) -> BuildRequest:
        """Return the request for an image of two layers; `marks` change what its build stage does."""
        packages = tuple(_wheel(package, size) for package, size in ((name, 5_000_000), ("small", 10)))
        lock = Lock(
            req_id="1" * 40,
            target=Target(platform=Platform.parse(platform)),
            python_version=VERSION,
            python_source="base",
            packages=packages,
            resolved_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
            resolver="the test",
        )
        spec = ImageSpec(lock=lock, base=self.base(platform), labels={"team": "ml $1"})
        given = {
            "reference": f"{self.registry}/images/{secrets.token_hex(4)}:tag",
            "materials": SmallMaterials({mark: secrets.token_hex(4) for mark in marks.split()}),
            **fields,
        }
        return BuildRequest(spec=spec, plan=plan_layers(spec), **given)

    def images(self) -> set[str]:
        """Return the ids of all images but the bases, dangling ones included."""
        listed = self.docker.ask("images", "--all", "--no-trunc", "--format={{.Repository}} {{.ID}}").splitlines()
        return {line.split()[1] for line in listed if line.split()[0] != self.base_repository}

    def containers(self) -> list[str]:
        """Return the ids of all containers."""
        return self.docker.ask("ps", "--all", "--quiet").split()

    def networks(self) -> set[str]:
        """Return the ids of all networks."""
        return set(self.docker.ask("network", "ls", "--quiet", "--no-trunc").split())

    def settle(self) -> None:
        """Return when no container is left, which must be soon."""
        eventually_gone(self.containers, every_s=0.2)


def _wheel(name: str, size: int) -> Wheel:
    return Wheel(
        name=name,
        version="1.0",
        filename=f"{name}-1.0-py3-none-any.whl",
        url=f"https://index.invalid/{name}-1.0-py3-none-any.whl",
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        size_bytes=size,
        role="user",
    )


@pytest.fixture(scope="session")
def base_repository(registry_host: str) -> str:
    """A repository with a base image for two platforms; what is in it is this machine's."""
    repository = f"{registry_host}/base/docker-builder"
    push_base_image(open_repository(repository), platforms=[Platform.parse(platform) for platform in PLATFORMS])
    return repository


@pytest.fixture(scope="module")
def podman(registry_host: str) -> Iterator[Docker]:
    """Podman's socket, with a storage of its own; the ``docker`` command that asks it is Docker's."""
    with (
        wanted_engine(),
        podman_storage() as variables,
        tempfile.TemporaryDirectory(prefix="prebuilt-podman-") as name,
        _podman(Path(name), registry_host, variables) as docker,
    ):
        yield docker


@contextlib.contextmanager
def _podman(folder: Path, registry: str, storage: Mapping[str, str]) -> Iterator[Docker]:
    from prebuilt.testing.engines.docker_release import DockerRelease

    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    programs = folder / "programs"
    programs.mkdir()
    (programs / "docker").symlink_to(DockerRelease.find("installed").docker)
    (folder / "config").mkdir()
    docker = Docker(
        host=f"unix://{folder}/podman.sock", version="podman", programs=programs, config=folder / "config", bridge=None
    )
    environ = {**os.environ, **storage, "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf")}
    command = ["podman", "system", "service", "--time=0", docker.host]
    with running(command, log=folder / "log", ready=lambda: _answers(docker), environ=environ):
        yield docker


def _answers(docker: Docker) -> bool:
    try:
        return bool(docker.ask("version"))
    except EngineError:
        return False


BENCHES = {
    "classic of 20.10": ("docker_oldest", "auto"),
    "classic of 28": ("docker_current", "classic"),
    "buildkit of 28": ("docker_current", "auto"),
    "podman": ("podman", "auto"),
}


@pytest.fixture(params=list(BENCHES))
def bench(
    request: pytest.FixtureRequest, registry_host: str, base_repository: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Each engine and builder in turn. Nothing but bases is left in the engine, and nothing in the temporary folder."""
    fixture, builder = BENCHES[request.param]
    yield from _checked(
        request.getfixturevalue(fixture), builder, registry_host, base_repository, tmp_path_factory.mktemp("tmp")
    )


@pytest.fixture(params=[name for name in BENCHES if name != "podman"])
def docker_bench(
    request: pytest.FixtureRequest, registry_host: str, base_repository: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """As `bench`, without Podman, which stops no build when its client goes away."""
    fixture, builder = BENCHES[request.param]
    yield from _checked(
        request.getfixturevalue(fixture), builder, registry_host, base_repository, tmp_path_factory.mktemp("tmp")
    )


@pytest.fixture
def modern(
    docker_current: Docker, registry_host: str, base_repository: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """The current release as a user finds it."""
    yield from _checked(docker_current, "auto", registry_host, base_repository, tmp_path_factory.mktemp("tmp"))


def _checked(docker: Docker, builder: str, registry: str, base_repository: str, temporary: Path) -> Iterator[Bench]:
    bench = Bench(
        docker=docker, builder=builder, registry=registry, base_repository=base_repository, temporary=temporary
    )
    docker.ask("image", "prune", "--force")  # so that what a test prunes is its own
    images, networks = bench.images(), bench.networks()
    yield bench
    assert bench.containers() == []
    assert bench.networks() == networks
    assert bench.images() == images
    eventually_gone(lambda: list(temporary.iterdir()))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_builds_and_pushes(bench: Bench, platform: str) -> None:
    """The image is served as described, for its platform without emulation, and is whole; the engine keeps only the base."""
    request, progress = bench.request(platform=platform), RecordingProgress()
    built = bench.service().build(request, progress)
    repository, _, tag = request.reference.rpartition(":")
    served = open_repository(repository).resolve(tag)
    assert served is not None
    assert built == served or (built is None and bench.docker.version == "podman")
    report = inspect_image(open_repository(repository), tag)
    assert report.config.data["architecture"] == platform.split("/")[1]
    made = subtree(report.tree, f"{PREFIX}/share")
    assert {layer.key for layer in request.plan.layers} <= {path.rpartition("/")[2] for path in made}
    assert report.config.env["PATH"].startswith(f"{PREFIX}/bin:")
    assert report.config.labels["team"] == "ml $1"
    assert any("runs on x86_64" in text for text in progress.texts) or not HOST_IS_AMD64


def test_classic_builder_beside_containerds_images(
    docker_containerd: Docker, registry_host: str, base_repository: str, tmp_path: Path
) -> None:
    """An engine that keeps images as new ones of release 29 do is used without a docker command, too."""
    for bench in _checked(docker_containerd, "classic", registry_host, base_repository, tmp_path):
        for platform in PLATFORMS:
            request = bench.request(platform=platform)
            built = bench.service().build(request, RecordingProgress())
            repository, _, tag = request.reference.rpartition(":")
            assert built == open_repository(repository).resolve(tag)
            assert inspect_image(open_repository(repository), tag).config.data["architecture"] == platform.split("/")[1]


def test_says_once_which_builder_and_why(bench: Bench) -> None:
    """One line names the builder and the reason; a second image does not repeat it."""
    service, progress = bench.service(), RecordingProgress()
    for name in ("one", "two"):
        service.build(bench.request(name=name), progress)
    [said] = [text for text in progress.texts if text.startswith(("building with the", "building with BuildKit of"))]
    assert ("BuildKit of Docker Engine 28" in said) is ((bench.docker.version[:2], bench.builder) == ("28", "auto"))


def test_builds_at_once(bench: Bench) -> None:
    """Several images, and one image several times, are built at once by one instance."""
    service = bench.service()
    requests = [bench.request(name=name) for name in ("one", "two")] * 2
    with ThreadPoolExecutor(len(requests)) as pool:
        list(pool.map(lambda request: service.build(request, RecordingProgress()), requests))
    for request in requests:
        repository, _, tag = request.reference.rpartition(":")
        inspect_image(open_repository(repository), tag)


def test_failure_shows_the_last_lines(bench: Bench) -> None:
    """A step that fails is an error with the reason and the last 50 lines; each line was passed on as it came."""
    progress = RecordingProgress()
    with pytest.raises(BuildError) as caught:
        bench.service().build(bench.request(marks="chatty"), progress)
    assert any("gave up" in line for line in caught.value.output)
    assert any("line 79" in line for line in caught.value.output)
    assert len(caught.value.output) <= 50
    assert any("line 3" in text for text in progress.texts)


def test_base_that_is_not_there(bench: Bench) -> None:
    """A base that the engine cannot pull is said to be that."""
    said: list[str] = []
    dockerfile = f"FROM {bench.registry}/no/such:image\nCOPY a /a\n"
    service = bench.service()
    assert not service.build_and_push(
        dockerfile, {"a": "x"}, f"{bench.registry}/x:1", {}, lambda text, **_: said.append(text)
    )
    assert "the base image is not there" in said[-1]
    assert "METAFLOW_PREBUILT_BASE_IMAGE" in said[-1]


@pytest.mark.parametrize("place", ["there", "nowhere"])
def test_image_of_the_build_stage_that_cannot_be_pulled(bench: Bench, place: str) -> None:
    """One that is absent, or out of reach, is told from the base, and its own setting is named."""
    host = bench.registry if place == "there" else "127.0.0.1:1"
    materials = SmallMaterials({}, image=f"{host}/no/tools:3")
    with pytest.raises(BuildError) as caught:
        bench.service().build(bench.request(materials=materials), RecordingProgress())
    reason = "is not there" if place == "there" else "does not reach the registry of"
    assert reason in caught.value.reason
    assert f"the build stage's image {host}/no/tools:3" in caught.value.reason
    assert "METAFLOW_PREBUILT_BUILD_IMAGE" in caught.value.remedy
    assert "METAFLOW_PREBUILT_BASE_IMAGE" not in caught.value.remedy


def test_published_call(bench: Bench) -> None:
    """What others render is built as it is, for the platform that they ask for, and pushed."""
    said: list[str] = []
    tag = f"{bench.registry}/published/{secrets.token_hex(4)}:tag"
    dockerfile = f"FROM {bench.base_repository}:base\nCOPY data/file /data/\nENV A=1\n"
    echo = lambda text, **_: said.append(text)  # noqa: E731 - as callers write it
    assert bench.service().build_and_push(dockerfile, {"data/file": b"\0x"}, tag, {}, echo, "linux/amd64") is True
    report = inspect_image(open_repository(tag.rpartition(":")[0]), "tag")
    assert "data/file" in report.tree
    assert said


def test_keeps_the_image_when_asked(bench: Bench) -> None:
    """METAFLOW_PREBUILT_DOCKER_KEEP_LOCAL leaves the image in the engine, by the name that it was pushed as alone."""
    request = bench.request()
    bench.service(DOCKER_KEEP_LOCAL="1").build(request, RecordingProgress())
    names = bench.docker.ask("images", "--format={{.Repository}}:{{.Tag}}").split()
    assert request.reference in names
    assert not [name for name in names if "metaflow-prebuilt-build" in name]
    bench.docker.ask("rmi", request.reference)


class _Waits(RecordingProgress):
    """Sets an event when the build stage sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps = threading.Event()

    def output(self, line: str) -> None:
        super().output(line)
        if line.endswith("sleeping now"):
            self.sleeps.set()


def test_cancelled_build_stops(docker_bench: Bench) -> None:
    """A build that is cancelled in the middle of a step ends within seconds, in the engine too."""
    cancellation, progress = Cancellation(), _Waits()
    request = docker_bench.request(marks="slow", cancellation=cancellation)
    with ThreadPoolExecutor(1) as pool:
        built = pool.submit(docker_bench.service().build, request, progress)
        assert progress.sleeps.wait(300), progress.texts
        began_s = time.monotonic()
        cancellation.cancel()
        with pytest.raises(CancelledError):
            built.result(timeout=60)
    assert time.monotonic() - began_s < 50
    docker_bench.settle()


def test_build_that_takes_too_long(docker_bench: Bench) -> None:
    """METAFLOW_PREBUILT_DOCKER_TIMEOUT ends a build, and the error names it."""
    with pytest.raises(BuildError, match="METAFLOW_PREBUILT_DOCKER_TIMEOUT") as caught:
        docker_bench.service(DOCKER_TIMEOUT="4").build(docker_bench.request(marks="slow"), RecordingProgress())
    assert "after 4 s" in caught.value.reason
    docker_bench.settle()


_CLIENT = """
import sys
from prebuilt.docker import LocalDockerBuildService
dockerfile, tag = sys.argv[1:]
LocalDockerBuildService().build_and_push(dockerfile, {}, tag, {}, lambda text, **_: print(text, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_client_leaves_nothing(docker_bench: Bench, number: signal.Signals) -> None:
    """A client that is killed, or gets Ctrl-C, in the middle of a step leaves no container, image, process or folder."""
    mark = secrets.token_hex(8)
    dockerfile = f"FROM {docker_bench.base_repository}:base\nRUN echo sleeping $((40+2)) && sleep 600 # {mark}\n"
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, dockerfile, f"{docker_bench.registry}/killed:{mark}"],
        env=dict(docker_bench.settings().environ),
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert client.stdout is not None
        assert any("sleeping 42" in line for line in client.stdout)
        client.send_signal(number)
        client.wait(300)
    docker_bench.settle()
    eventually_gone(lambda: commands_with(mark))


def test_killed_client_leaves_no_package(
    docker_bench: Bench, make_bakery: Callable[..., Any], new_deployer: Any
) -> None:
    """Packages that travel are in a folder of this machine while the image is built, and are gone once the client is killed."""
    bench = docker_bench
    machine = new_deployer(host=bench.registry, base=f"{bench.base_repository}:base")
    bakery = make_bakery(
        machine.folder / "killed",
        f"{bench.registry}/killed-bakes/{secrets.token_hex(4)}",
        base=machine.base,
        builder="docker",
        variables={
            **{name: value for name, value in bench.settings().environ.items() if name not in os.environ},
            **{name: bench.settings().environ[name] for name in ("PATH", "TMPDIR", *bench.docker.environ)},
            "UV_DEFAULT_INDEX": machine.index.url,
        },
    )
    downloads = bakery.folder / "cache" / "downloads"
    with bakery.start(pypi={"hefty": "", "talker": ""}) as client:
        said = []
        for line in client.stderr:
            said.append(line)
            if re.search(r"---> Running in|#\d+ \[tools", line):
                break
        assert list(downloads.glob("build-*/*hefty*")), "".join(said)
        client.kill()
    bench.settle()
    eventually_gone(lambda: list(downloads.iterdir()))
    for _ in range(4):  # old engines end the step that they are at, and keep its image with those before it
        time.sleep(0.5)
        bench.docker.ask("image", "prune", "--force")


def test_login(docker_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that wants a login gets the request's credentials, else those of Docker's configuration, else it is said that it wants one.

    Podman would want this registry in its configuration.
    """
    bench = docker_bench
    users = {"me": "s3cret"}
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users=users)) as guarded:
        reference, progress = f"{guarded.repository('team/image')}:tag", RecordingProgress()
        with pytest.raises(PrebuiltError) as caught:
            bench.service().build(bench.request(reference=reference), progress)
        assert isinstance(caught.value, UnauthorizedError)
        assert "docker login 127.0.0.1" in caught.value.remedy
        credentials = Credentials(username="me", secret="s3cret")
        assert bench.service().build(bench.request(reference=reference, credentials=credentials), progress)
        logins = {"auths": {guarded.host: {"auth": base64.b64encode(b"me:s3cret").decode()}}}
        variable = Settings({**bench.settings().environ, "DOCKER_AUTH_CONFIG": json.dumps(logins)}, {})
        assert LocalDockerBuildService(variable).build(bench.request(reference=reference), progress)
        (tmp_path / "config.json").write_text(json.dumps(logins))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        assert bench.service().build(bench.request(reference=reference), progress)
    assert "s3cret" not in "".join(progress.texts) + str(caught.value)


def test_registry_that_is_down_for_a_moment(modern: Bench) -> None:
    """A push that fails for a passing reason is tried again."""
    with InMemoryRegistry() as registry:
        registry.fail("*", "", status=503, times=2)
        request = modern.request(reference=f"{registry.repository('team/image')}:tag")
        assert modern.service().build(request, RecordingProgress()) is not None


def test_command_without_buildx(modern: Bench, tmp_path: Path) -> None:
    """Where the docker command cannot have BuildKit build, the classic builder does, and says why; forced, it is an error."""
    settings = modern.settings(DOCKER_BUILDER="auto")
    environ = {**settings.environ, "DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    if "buildx" in subprocess.run(["docker", "info"], env=environ, capture_output=True, text=True, check=False).stdout:
        pytest.skip("not asked of this machine: buildx is installed for all its users")
    progress = RecordingProgress()
    LocalDockerBuildService(Settings(environ, {})).build(modern.request(), progress)
    assert any("has no plugin buildx" in text for text in progress.texts)
    forced = Settings(environ | {"METAFLOW_PREBUILT_DOCKER_BUILDER": "buildkit"}, {})
    with pytest.raises(BuildError, match="no plugin buildx"):
        LocalDockerBuildService(forced).build(modern.request(), RecordingProgress())


def test_docker_context(modern: Bench, tmp_path: Path) -> None:
    """The engine of the Docker context in use is used, by both builders, whatever builder buildx has in use."""
    (tmp_path / "cli-plugins").symlink_to(modern.docker.config / "cli-plugins")
    environ = {**modern.settings().environ, "DOCKER_CONFIG": str(tmp_path), "BUILDX_BUILDER": "another"}
    del environ["DOCKER_HOST"]
    for command in (
        ("context", "create", "mine", f"--docker=host={modern.docker.host}"),
        ("context", "use", "mine"),
    ):
        subprocess.run(["docker", *command], env=environ, check=True, capture_output=True)
    for builder in ("buildkit", "classic"):
        settings = Settings(environ | {"METAFLOW_PREBUILT_DOCKER_BUILDER": builder}, {})
        assert LocalDockerBuildService(settings).build(modern.request(), RecordingProgress()) is not None


def test_proxies_are_arguments(bench: Bench) -> None:
    """Steps have this machine's proxies; the image and its history have not."""
    proxy = "http://me:s3cret@proxy.invalid:3128"
    settings = bench.settings()
    service = LocalDockerBuildService(Settings({**settings.environ, "HTTPS_PROXY": proxy}, {}))
    tag = f"{bench.registry}/proxies/{secrets.token_hex(4)}:tag"
    dockerfile = f'FROM {bench.base_repository}:base\nRUN test "${{HTTPS_PROXY#*@}}" = proxy.invalid:3128\n'
    assert service.build_and_push(dockerfile, {}, tag, {}, lambda *_, **__: None, "linux/amd64")
    report = inspect_image(open_repository(tag.rpartition(":")[0]), "tag")
    assert "s3cret" not in str(report.config.data)


@pytest.fixture(scope="module")
def docker_with_a_small_disk() -> Iterator[Docker]:
    """An engine with 24 MB for all that it keeps."""
    with wanted_engine(), docker_engine("current", buildx=True, disk_bytes=24_000_000) as docker:
        yield docker


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
@pytest.mark.parametrize("work", ["build", "pull"])
def test_engine_with_a_full_disk(
    builder: str,
    work: str,
    docker_with_a_small_disk: Docker,
    registry_host: str,
    base_repository: str,
    tmp_path: Path,
) -> None:
    """A disk that is full while an image is built, or its base is pulled, is known by what the engine says."""
    bench = Bench(
        docker=docker_with_a_small_disk,
        builder=builder,
        registry=registry_host,
        base_repository=base_repository,
        temporary=tmp_path,
    )
    base = "scratch" if work == "build" else f"{base_repository}:base"
    context = {"large": os.urandom(30_000_000)} if work == "build" else {"large": b"x"}
    said: list[str] = []
    dockerfile, tag = f"FROM {base}\nCOPY large /\n", f"{registry_host}/full:tag"
    assert not bench.service().build_and_push(dockerfile, context, tag, {}, lambda text, **_: said.append(text))
    assert "the engine's disk is full" in said[-1]
    assert "docker system prune" in said[-1]
