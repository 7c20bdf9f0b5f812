"""The builder ``buildx`` on real BuildKit daemons, by each driver."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from prebuilt.buildx import BuildxBuildService
from prebuilt.core.build_service import BuildRequest, Cancellation
from prebuilt.core.credentials import Credentials
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.dockerfile import PROGRAM, BuildMaterials
from prebuilt.core.errors import BuildError, CancelledError, EngineError
from prebuilt.core.lock import Lock, Wheel
from prebuilt.core.plan import LARGE_BYTES, plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import PREFIX, BaseImage, BasePython, ImageSpec
from prebuilt.core.tree import BytesContent
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.open import open_repository
from prebuilt.oci.reference import parse_reference
from prebuilt.oci.repository import Repository
from prebuilt.testing.base_image import push_base_image
from prebuilt.testing.conformance.materials import RecordingProgress
from prebuilt.testing.engines.binfmt import no_arm64_emulation
from prebuilt.testing.engines.buildkit import BuildKit, buildkit_daemon
from prebuilt.testing.engines.buildx import EMBEDDED, container_builder, remote_builder
from prebuilt.testing.engines.docker import Docker
from prebuilt.testing.engines.wanted import wanted_engine
from prebuilt.testing.image_tree import subtree, tree_differences
from prebuilt.testing.processes import commands_with
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.registry_auth import RegistryAuth
from prebuilt.testing.validate import ImageReport, inspect_image
from prebuilt.testing.waiting import eventually_gone

pytestmark = pytest.mark.buildx

PLATFORMS = [Platform.parse("linux/amd64"), Platform.parse("linux/arm64")]
PYTHON = ".".join(map(str, sys.version_info[:3]))

# Makes each layer below layers/ by the standard library alone, out of the names of its packages.
_MAKES_LAYERS = """\
    import json, os, pathlib, platform, sys
    root = pathlib.Path("/prebuilt")
    for path in sorted((root / "layers").glob("*.json")) if (root / "layers").is_dir() else []:
        layer = json.loads(path.read_text())
        made = root / "made" / layer["key"]
        if made.exists():
            continue
        environment = made / layer["prefix"].lstrip("/")
        (environment / "bin").mkdir(parents=True)
        if layer["kind"] == "interpreter":
            (environment / "bin" / "python3").symlink_to(layer["base_python"]["path"])
        for package in layer["packages"]:
            folder = environment / layer["site_packages"] / package["name"]
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text(f"VERSION = {package['version']!r}\\n")
            if package["name"] == "failing":
                print("failing says why", flush=True)
                sys.exit(3)
            if package["name"] == "sleeping":
                print("sleeping begins", flush=True)
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(300)", package["version"]])
    print("made on", platform.machine(), flush=True)
"""


class _Materials:
    """Gives a build stage a program that makes layers out of nothing."""

    @contextlib.contextmanager
    def gather(self, spec: ImageSpec, progress: object, *, check: Callable[[], None]) -> Iterator[BuildMaterials]:
        check()
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr(zipfile.ZipInfo("__main__.py"), textwrap.dedent(_MAKES_LAYERS))
        yield BuildMaterials(files={PROGRAM: BytesContent(data.getvalue())})


def wheel(name: str, version: str = "1.0", size_bytes: int = 1000) -> Wheel:
    """Return a wheel that nothing downloads."""
    return Wheel(
        name=name,
        version=version,
        filename=f"{name}-{version}-py3-none-any.whl",
        url=f"https://index.example/{name}-{version}-py3-none-any.whl",
        sha256=f"{name}{version}".encode().hex().ljust(64, "0")[:64],
        size_bytes=size_bytes,
        role="user",
    )


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """A builder's name, where bases are, and where images go."""

    repository: str
    bases: Mapping[str, BaseImage]
    builder: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def request(
        self, *packages: Wheel, tag: str = "image", platform: str = "linux/amd64", **changes: Any
    ) -> BuildRequest:
        """Return the request to build an image of `packages`."""
        base = self.bases[platform]
        asked = Requirements(
            python=PYTHON, target=Target(platform=base.platform), pypi={package.name: "" for package in packages}
        )
        lock = Lock(
            req_id=asked.on(base).req_id,
            target=asked.on(base).target,
            python_version=PYTHON,
            python_source="base",
            packages=packages,
            resolved_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
            resolver="this test",
        )
        spec = ImageSpec(lock=lock, base=base)
        request = BuildRequest(
            spec=spec, plan=plan_layers(spec), reference=f"{self.repository}:{tag}", materials=_Materials()
        )
        return replace(request, **changes)

    def service(self, **settings: str) -> BuildxBuildService:
        """Return a builder as a new process would have it."""
        environ = {"METAFLOW_PREBUILT_BUILDX_BUILDER": self.builder, **self.settings, **settings}
        return BuildxBuildService(Settings(environ, {}))

    def build(
        self, request: BuildRequest, progress: RecordingProgress | None = None, **settings: str
    ) -> Descriptor | None:
        """Build a request."""
        return self.service(**settings).build(request, progress or RecordingProgress())

    def report(self, tag: str = "image", platform: str = "linux/amd64") -> ImageReport:
        """Return what was pushed, every digest of it checked."""
        return inspect_image(open_repository(self.repository), tag, platform=Platform.parse(platform))

    def layers(self, tag: str = "image") -> Sequence[Descriptor]:
        """Return the layers of what was pushed."""
        return _manifest(open_repository(self.repository), tag).layers


def _manifest(repository: Repository, tag: str) -> ImageManifest:
    manifest = repository.get_manifest(tag)
    assert manifest is not None
    return ImageManifest.parse(manifest.data)


@pytest.fixture(scope="session")
def bases(registry_host: str) -> dict[str, BaseImage]:
    """A base with the Python of this process for two platforms, by platform. What it has for arm64 cannot be run as that."""
    return push_bases(f"{registry_host}/buildx-bases")


def push_bases(place: str) -> dict[str, BaseImage]:
    """Push an index of two platforms; return both images."""
    return read_bases(push_base_image(open_repository(place), tag="python", platforms=PLATFORMS))


def read_bases(reference: str) -> dict[str, BaseImage]:
    """Return the images of an index."""
    parsed = parse_reference(reference)
    repository = open_repository(parsed.repository)
    index = repository.resolve(parsed.identifier)
    assert index is not None
    found = repository.get_manifest(index.digest)
    assert found is not None
    return {
        (platform := "/".join((entry["platform"]["os"], entry["platform"]["architecture"]))): BaseImage(
            reference=reference,
            repository=parsed.repository,
            digest=entry["digest"],
            platform=Platform.parse(platform),
            layer_count=1,
            glibc="2.36",
            python=BasePython(path="/usr/local/bin/python3", version=PYTHON),
            index_digest=index.digest,
        )
        for entry in json.loads(found.data)["manifests"]
    }


@pytest.fixture
def client(docker_current: Docker, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """A command line with buildx, in the environment of the test."""
    for name, value in docker_current.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return docker_current


@pytest.fixture
def workplace(
    client: Docker, buildkit: BuildKit, registry_host: str, bases: dict[str, BaseImage], request: pytest.FixtureRequest
) -> Iterator[Workplace]:
    """A builder of the driver ``remote``, and a repository of the test's own."""
    name = request.node.name.partition("[")[0].replace("_", "-")
    with remote_builder(client, buildkit) as builder:
        yield Workplace(repository=f"{registry_host}/buildx/{name}", bases=bases, builder=builder)


@pytest.fixture
def fresh(
    client: Docker, registry_host: str, tmp_path: Path
) -> Callable[[Workplace], contextlib.AbstractContextManager]:
    """Return what gives a workplace a daemon that has nothing yet."""

    @contextlib.contextmanager
    def replaced(workplace: Workplace) -> Iterator[Workplace]:
        with (
            wanted_engine(),
            buildkit_daemon(tmp_path / "fresh", registry=registry_host) as daemon,
            remote_builder(client, daemon) as builder,
        ):
            yield replace(workplace, builder=builder)

    return replaced


def _ran(progress: RecordingProgress) -> int:
    """Return how many steps of the build stage ran, rather than came from a cache."""
    return sum("made on" in text for text in progress.texts)


def test_image_is_what_was_asked_for(workplace: Workplace):
    """Layers, environment, labels, annotations and compression are those of the spec, on the base's unchanged layers."""
    request = workplace.request(wheel("one"), wheel("large", size_bytes=LARGE_BYTES))
    progress = RecordingProgress()
    built = workplace.build(request, progress)
    repository = open_repository(workplace.repository)
    manifest, report = _manifest(repository, "image"), workplace.report()
    assert built == repository.resolve("image")
    base = _manifest(open_repository(request.spec.base.repository), request.spec.base.digest)
    assert [layer.digest for layer in manifest.layers][:1] == [layer.digest for layer in base.layers]
    added = manifest.layers[1:]
    assert len(added) == len(request.plan.layers)
    assert {layer.media_type for layer in added} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    assert f"{PREFIX}/lib/python{PYTHON.rpartition('.')[0]}/site-packages/large/__init__.py".lstrip("/") in report.tree
    assert report.config.env["PATH"].startswith(f"{PREFIX}/bin:")
    assert report.config.labels.items() >= request.spec.all_labels.items()
    assert manifest.annotations["metaflow-prebuilt.image"] == request.spec.full_id
    assert manifest.annotations["org.opencontainers.image.base.digest"] == request.spec.base.digest
    assert report.config.data["created"] == "1970-01-01T00:00:00Z"


def test_same_spec_gives_same_digest_from_nothing(workplace: Workplace, fresh: Callable):
    """Two daemons with empty caches give one digest; a second build on one of them runs nothing."""
    request = workplace.request(wheel("one"), wheel("two"))
    first = workplace.build(request)
    with fresh(workplace) as other:
        cold, again = RecordingProgress(), RecordingProgress()
        second = other.build(replace(request, reference=f"{workplace.repository}:second"), cold)
        time.sleep(1.1)  # so that a time of day would differ
        third = other.build(replace(request, reference=f"{workplace.repository}:third"), again)
    assert first == second == third
    assert _ran(cold) == 1 + len(request.plan.layers)
    assert _ran(again) == 0


def test_one_changed_package_keeps_the_other_layers(workplace: Workplace):
    """A new version of one package gives one new layer, and runs one step."""
    large = wheel("large", size_bytes=LARGE_BYTES)
    workplace.build(workplace.request(large, wheel("changing"), tag="before"))
    progress = RecordingProgress()
    workplace.build(workplace.request(large, wheel("changing", "2.0"), tag="after"), progress)
    before, after = (({layer.digest for layer in workplace.layers(tag)}) for tag in ("before", "after"))
    assert len(after - before) == 1
    assert _ran(progress) == 1


def test_gzip_for_old_engines(workplace: Workplace):
    """A spec of gzip has layers of gzip."""
    request = workplace.request(wheel("one"))
    workplace.build(replace(request, spec=replace(request.spec, compression="gzip")))
    assert {layer.media_type for layer in workplace.layers()} == {"application/vnd.oci.image.layer.v1.tar+gzip"}


def test_arm64_needs_no_emulation(workplace: Workplace):
    """An image for arm64 is made on amd64 where nothing can run arm64's programs."""
    progress = RecordingProgress()
    with no_arm64_emulation():
        workplace.build(workplace.request(wheel("one"), platform="linux/arm64"), progress)
    report = workplace.report(platform="linux/arm64")
    assert report.config.data["architecture"] == "arm64"
    assert any(f"made on {os.uname().machine}" in text for text in progress.texts)


def test_emulation_is_missing(workplace: Workplace, debian_base: str):
    """Where the build stage can only run as arm64, and the machine cannot, the error says what would help."""
    request = workplace.request(wheel("one"), platform="linux/arm64")
    python = BasePython(path="/usr/bin/python3", version=PYTHON)
    alone = replace(read_bases(debian_base)["linux/arm64"], index_digest=None, python=python)
    with no_arm64_emulation(), pytest.raises(BuildError, match="exec format error") as caught:
        workplace.build(replace(request, spec=replace(request.spec, base=alone)))
    assert "emulation" in caught.value.remedy


def test_base_in_a_folder_is_sent(workplace: Workplace, tmp_path: Path):
    """A base in an image layout of this machine reaches the builder through the client."""
    local = replace(workplace, bases=push_bases(f"oci:{tmp_path / 'layout'}"))
    for platform in map(str, PLATFORMS):
        request = local.request(wheel("one"), platform=platform, tag=platform.partition("/")[2])
        local.build(request)
        with_registry = workplace.request(wheel("one"), platform=platform, tag="other")
        workplace.build(with_registry)
        one, other = (local.report(tag, platform) for tag in (platform.partition("/")[2], "other"))
        assert tree_differences(one.tree, other.tree) == []


def test_cache_in_the_registry_serves_a_fresh_daemon(workplace: Workplace, fresh: Callable):
    """What one daemon has made another one takes from the registry: it runs nothing, or only what changed."""
    large = wheel("large", size_bytes=LARGE_BYTES)
    cached = replace(workplace, settings={"METAFLOW_PREBUILT_BUILDX_CACHE": "on"})
    first = cached.build(cached.request(large, wheel("one")))
    with fresh(cached) as other:
        same, changed, more = (RecordingProgress() for _ in range(3))
        assert other.build(other.request(large, wheel("one")), same) == first
        other.build(other.request(large, wheel("one", "2.0"), tag="changed"), changed)
        other.build(other.request(large, wheel("one", "2.0"), wheel("more"), tag="more"), more)
    assert (_ran(same), _ran(changed), _ran(more)) == (0, 1, 1)


def test_cache_of_other_packages_serves_too(workplace: Workplace, fresh: Callable):
    """An environment with a package more takes from the cache of whichever was built last."""
    large = wheel("large", size_bytes=LARGE_BYTES)
    cached = replace(workplace, settings={"METAFLOW_PREBUILT_BUILDX_CACHE": f"{workplace.repository}/cache"})
    cached.build(cached.request(large, wheel("one")))
    progress = RecordingProgress()
    with fresh(cached) as other:
        other.build(other.request(large, wheel("one"), wheel("more"), tag="more"), progress)
    assert _ran(progress) == 1
    assert open_repository(f"{workplace.repository}/cache").resolve("buildcache") is not None


def test_failed_step_is_shown(workplace: Workplace):
    """The error has what the failed step said, and why the builder stopped; nothing is tagged."""
    with pytest.raises(BuildError) as caught:
        workplace.build(workplace.request(wheel("failing")))
    assert any("failing says why" in line for line in caught.value.output)
    assert "did not complete successfully: exit code: 3" in caught.value.reason
    assert caught.value.at == f"{workplace.repository}:image"
    assert open_repository(workplace.repository).resolve("image") is None


def test_cancelled_build_stops(workplace: Workplace, unique: str):
    """A build that is cancelled in its midst ends soon, and so does the step that ran."""

    class Cancelling(RecordingProgress):
        def output(self, line: str) -> None:
            super().output(line)
            if "sleeping begins" in line:
                cancellation.cancel()

    cancellation = Cancellation()
    with pytest.raises(CancelledError):
        workplace.build(workplace.request(wheel("sleeping", unique), cancellation=cancellation), Cancelling())
    eventually_gone(lambda: commands_with(unique))
    assert open_repository(workplace.repository).resolve("image") is None


def test_killed_client_leaves_nothing(workplace: Workplace, unique: str, tmp_path: Path):
    """SIGKILL of the deploying process ends the command and its step, and no folder with a login stays."""
    program = tmp_path / "client.py"
    program.write_text(
        "import importlib.util, pickle, sys\n"
        f"spec = importlib.util.spec_from_file_location('here', {__file__!r})\n"
        "here = sys.modules['here'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(here)\n"
        "from prebuilt.testing.conformance.materials import RecordingProgress\n"
        "class Printing(RecordingProgress):\n"
        "    def output(self, line):\n"
        "        print(line, flush=True)\n"
        f"bases = here.push_bases({workplace.bases['linux/amd64'].repository!r})\n"
        f"place = here.Workplace(repository={workplace.repository!r}, bases=bases, builder={workplace.builder!r})\n"
        "login = here.Credentials(username='me', secret='s3cret')\n"
        f"place.build(place.request(here.wheel('sleeping', {unique!r}), credentials=login), Printing())\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as process:
        assert process.stdout is not None
        assert any("sleeping begins" in line for line in process.stdout)
        assert list(scratch.glob("*/docker/config.json"))
        process.send_signal(signal.SIGKILL)
    eventually_gone(lambda: commands_with(unique))
    eventually_gone(lambda: commands_with(f"builder {workplace.builder}"))
    eventually_gone(lambda: list(scratch.iterdir()))


@pytest.fixture
def unique() -> str:
    """A version that no other process has on its command line."""
    return f"1.{secrets.randbits(64)}"


def test_login_is_used_and_kept_secret(workplace: Workplace, capfd: pytest.CaptureFixture[str]):
    """The request's login pushes where the user's configuration has none; a wrong one is refused, and neither is shown."""
    secret = "s3cret-of-this-test"
    with InMemoryRegistry(auth=RegistryAuth(scheme="basic", users={"me": secret})) as guarded:
        place = replace(workplace, repository=guarded.repository("team/image"))
        progress = RecordingProgress()
        wrong = Credentials(username="me", secret=f"{secret}-wrong")
        with pytest.raises(BuildError) as caught:
            place.build(place.request(wheel("one"), credentials=wrong), progress)
        assert f"docker login {place.repository.partition('/')[0]}" in caught.value.remedy
        login = Credentials(username="me", secret=secret)
        built = place.build(place.request(wheel("one"), credentials=login), progress)
        assert built is not None
        assert open_repository(place.repository, login).resolve("image") == built
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    assert secret not in "\n".join((*progress.texts, str(caught.value), repr(caught.value)))


def test_published_signature_builds(workplace: Workplace, client: Docker, monkeypatch: pytest.MonkeyPatch):
    """``build_and_push`` builds any Dockerfile, echoes what is said, and returns False where it fails."""
    monkeypatch.setenv("METAFLOW_PREBUILT_BUILDX_BUILDER", workplace.builder)
    base, said = workplace.bases["linux/amd64"], list[str]()
    service = BuildxBuildService()
    dockerfile = f"FROM {base.repository}@{base.digest}\nCOPY a /a\n"
    assert service.build_and_push(dockerfile, {"a": "1"}, f"{workplace.repository}:image", {}, said.append)
    assert workplace.report().tree["a"].kind == "file"
    assert not service.build_and_push(
        f"{dockerfile}RUN false\n", {"a": "1"}, f"{workplace.repository}:no", {}, said.append
    )
    assert "exit code: 1" in said[-1]


@pytest.mark.parametrize("driver", ["docker", "docker-container"])
def test_other_drivers(
    driver: str,
    any_docker: Docker,
    registry_host: str,
    bases: dict[str, BaseImage],
    monkeypatch: pytest.MonkeyPatch,
):
    """The engine's own BuildKit and one in a container make the same files; what the engine's cannot do is said once."""
    for name, value in any_docker.environ.items():
        monkeypatch.setenv(name, value)
    made = (
        contextlib.nullcontext(EMBEDDED)
        if driver == "docker"
        else container_builder(any_docker, registry=registry_host)
    )
    with wanted_engine(), made as builder:
        place = Workplace(
            repository=f"{registry_host}/buildx/{driver}-{any_docker.version.partition('+')[0]}",
            bases=bases,
            builder=builder,
            settings={"METAFLOW_PREBUILT_BUILDX_OPTIONS": "--network=host --allow=network.host"},
        )
        progress = RecordingProgress()
        built = place.build(place.request(wheel("one")), progress)
    served = open_repository(place.repository).resolve("image")
    assert built == served if driver != "docker" else built in {None, served}
    assert any("what is built anew has another digest" in text for text in progress.texts) is (driver == "docker")
    assert {"one", "bin"} <= {path.rpartition("/")[2] for path in subtree(place.report().tree, PREFIX)}


def test_daemon_that_is_gone_is_said(client: Docker, workplace: Workplace):
    """A remote BuildKit that does not answer is named before anything starts, with what to do."""
    client.ask("buildx", "create", "--name=gone", "--driver=remote", "tcp://127.0.0.1:1")
    try:
        gone = replace(workplace, builder="gone")
        with pytest.raises(EngineError, match=r"builder gone at tcp://127\.0\.0\.1:1") as caught:
            gone.build(gone.request(wheel("one")))
    finally:
        client.ask("buildx", "rm", "gone")
    assert "METAFLOW_PREBUILT_BUILDX_BUILDER" in caught.value.remedy
