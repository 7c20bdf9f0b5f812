"""Materials for a Dockerfile: the same each time, with what the build cannot fetch, and without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.dockerfile import PROGRAM, BuildMaterials, dockerfile_build
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import CancelledError, DigestMismatchError, FetchError, ResolveError, SettingError
from prebuilt.core.lock import CondaPackage, Lock, LockedPackage, Wheel
from prebuilt.core.locks import Locks
from prebuilt.core.plan import plan_layers
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BaseImage, BasePython, ImageSpec
from prebuilt.lock.resolver import LockResolver
from prebuilt.lock.stage.materials import LockMaterials
from prebuilt.lock.stage.order import ORDER, StageOrder
from prebuilt.testing.python_index import PackageIndex, make_wheel
from prebuilt.testing.waiting import eventually_gone

XY = "{}.{}".format(*sys.version_info)
AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
SECRET = "s3cr3t-of-the-user"
RESOLVED_AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


class FakeResolver:
    """Resolves the tools to files of an index that is far away, and counts."""

    def __init__(self, lacks: Platform | None = None) -> None:
        self.asked: list[Requirements] = []
        self._lacks = lacks

    def resolve(self, requirements: Requirements, *, check: Callable[[], None] = lambda: None) -> Lock:
        """Return one wheel for each package that is asked for."""
        self.asked.append(requirements)
        if requirements.target.platform == self._lacks:
            raise ResolveError("resolve tools", reason="there are no wheels")
        return lock_of(*(tool(name, spec) for name, spec in requirements.pypi.items()), requirements=requirements)


def tool(name: str, spec: str) -> Wheel:
    """Return a wheel that everybody can fetch."""
    filename = f"{name.replace('-', '_')}-{spec}-py3-none-any.whl"
    url = f"https://files.example.org/{filename}"
    return Wheel(
        name=name, version=spec, filename=filename, url=url, sha256=f"{len(name):064x}", size_bytes=1, role="user"
    )


def lock_of(*packages: LockedPackage, requirements: Requirements | None = None) -> Lock:
    """Return a lock of `packages`."""
    target = Target(platform=AMD64, base_python=f"{XY}.1")
    requirements = requirements or Requirements(python=XY, target=target)
    return Lock(
        req_id=requirements.req_id,
        target=requirements.target,
        python_version=f"{XY}.1",
        python_source="base",
        packages=packages,
        resolved_at=RESOLVED_AT,
        resolver="by hand",
    )


def spec_of(*packages: LockedPackage) -> ImageSpec:
    """Return an image of `packages`."""
    base = BaseImage(
        reference="base:1",
        repository="registry.example.org/base",
        digest=f"sha256:{'b' * 64}",
        platform=AMD64,
        layer_count=1,
        glibc="2.36",
        python=BasePython(path="/usr/local/bin/python3", version=f"{XY}.1"),
    )
    return ImageSpec(lock=lock_of(*packages), base=base)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def resolver() -> FakeResolver:
    """Give a resolver of tools."""
    return FakeResolver()


@pytest.fixture
def notes() -> list[str]:
    """Give the lines that the user sees."""
    return []


MakeSource = Callable[..., LockMaterials]


@pytest.fixture
def source(home: Path, resolver: FakeResolver, notes: list[str]) -> MakeSource:
    """Give a function that makes a source of materials on a machine that is named."""

    def make(machine: str = "here", environ: Mapping[str, str] | None = None, **locks: Any) -> LockMaterials:
        own = {
            "HOME": str(home),
            "METAFLOW_PREBUILT_CACHE_DIR": str(home / machine / "cache"),
            "PIP_CONFIG_FILE": "/dev/null",
        }
        facts = {"resolver": resolver, "documents": FolderDocuments(home / machine / "documents"), **locks}
        return LockMaterials(
            settings=Settings({**own, **(environ or {})}, {}), locks=Locks(**facts, progress=LineProgress(notes.append))
        )

    return make


def gathered(source: LockMaterials, spec: ImageSpec, read: Callable[[BuildMaterials], Any] | None = None) -> Any:
    """Return what `read` finds in the materials; by default the whole context with its Dockerfile, by name."""
    image = LineProgress(lambda _: None).image("step")
    with source.gather(spec, image, check=lambda: None) as materials:
        return context_of(spec, materials) if read is None else read(materials)


def context_of(spec: ImageSpec, materials: BuildMaterials) -> dict[str, bytes]:
    """Return every file that a builder is handed."""
    build = dockerfile_build(spec, plan_layers(spec), materials, "buildkit")
    files = {"Dockerfile": build.dockerfile.encode()}
    for name, content in build.context.items():
        with content.open() as stream:
            files[name] = stream.read()
            assert len(files[name]) == content.size
    return files


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    """Give an index that wants a password."""
    with PackageIndex(username="u5er-of-the-index", password=SECRET).serving() as index:
        yield index


@pytest.fixture
def private(index: PackageIndex, home: Path) -> Wheel:
    """Give a wheel of that index."""
    import hashlib

    path = make_wheel(home / "made", "private", "1.0")
    index.add(path)
    data = path.read_bytes()
    url = f"{index.url.removesuffix('/simple')}/files/{path.name}"
    digest = hashlib.sha256(data).hexdigest()
    return Wheel(
        name="private", version="1.0", filename=path.name, url=url, sha256=digest, size_bytes=len(data), role="user"
    )


def test_the_same_lock_gives_the_same_context(
    source: MakeSource, index: PackageIndex, private: Wheel, monkeypatch: pytest.MonkeyPatch
):
    """From another folder, another cache, another day, with another resolver's time."""
    environ = {"PIP_INDEX_URL": index.url_with_credentials}
    spec = spec_of(private, tool("demo", "1.0"))
    first = gathered(source("one", environ), spec)
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert gathered(source("two", environ), spec) == first
    assert {name.partition("/")[0] for name in first} == {"Dockerfile", PROGRAM, ORDER, "layers", "packages"}


def test_packages_that_the_build_cannot_fetch_travel_and_are_gone_afterwards(
    source: MakeSource, index: PackageIndex, private: Wheel, home: Path
):
    """Their bytes were checked; the others are not even asked for."""
    made = source(environ={"PIP_INDEX_URL": index.url_with_credentials})
    context = gathered(made, spec_of(private, tool("demo", "1.0")))
    assert [name for name in context if name.startswith("packages/")] == [
        f"packages/{private.sha256}/{private.filename}"
    ]
    assert len(index.requests) == 1
    assert [path for path in (home / "here" / "cache").rglob("*") if path.is_file()] == []


def test_packages_that_travel_are_gone_when_we_are_killed(index: PackageIndex, private: Wheel, home: Path):
    """SIGKILL in the middle of a build leaves no file in the cache: a small process beside this one sees to it."""
    cache = home / "here" / "cache"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))},
        "PIP_INDEX_URL": index.url_with_credentials,
        "METAFLOW_PREBUILT_CACHE_DIR": str(cache),
        "HERE": __file__,
    }
    program = """
        import importlib.util, os, sys
        spec = importlib.util.spec_from_file_location("here", os.environ["HERE"])
        here = sys.modules["here"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(here)
        url, sha256, size = sys.argv[1:]
        wheel = here.Wheel(
            name="private", version="1.0", filename=url.rpartition("/")[2], url=url, sha256=sha256, size_bytes=int(size), role="user"
        )
        progress = here.LineProgress(lambda _: None)
        documents = here.FolderDocuments(here.Path(os.environ["METAFLOW_PREBUILT_CACHE_DIR"], "documents"))
        locks = here.Locks(resolver=here.FakeResolver(), documents=documents, progress=progress)
        source = here.LockMaterials(settings=here.Settings.load(), locks=locks)
        with source.gather(here.spec_of(wheel), progress.image("step"), check=lambda: None):
            print("ready", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), private.url, private.sha256, str(private.size_bytes)]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        [travelling] = (cache / "downloads").glob("build-*/*")
        assert travelling.name.endswith(private.filename)
        client.kill()
    eventually_gone(lambda: list((cache / "downloads").iterdir()))


def test_no_secret_is_in_the_context(source: MakeSource, index: PackageIndex, private: Wheel, home: Path):
    """Neither the index's password nor anything else of this user's configuration, nor a path of this machine."""
    netrc = home / ".netrc"
    netrc.write_text(f"machine other.example.org login u5er-of-the-index password {SECRET}\n")
    netrc.chmod(0o600)
    environ = {
        "PIP_INDEX_URL": index.url_with_credentials,
        "HTTPS_PROXY": f"http://u5er-of-the-index:{SECRET}@proxy.example.org:3128",
        "NO_PROXY": "127.0.0.1",
        "UV_INDEX_PRIVATE_PASSWORD": SECRET,
    }
    context = gathered(source(environ=environ), spec_of(private))
    for name, data in context.items():
        assert SECRET.encode() not in data, name
        assert b"u5er-of-the-index" not in data, name
        assert str(home).encode() not in data, name


def test_a_wrong_package_stops_it(source: MakeSource, index: PackageIndex, private: Wheel, home: Path):
    """Nothing of it is left."""
    from dataclasses import replace

    environ = {"PIP_INDEX_URL": index.url_with_credentials}
    with pytest.raises(DigestMismatchError):
        gathered(source(environ=environ), spec_of(replace(private, sha256="0" * 64)))
    assert [path for path in (home / "here" / "cache").rglob("*") if path.is_file()] == []


def test_a_package_that_is_gone_stops_it(source: MakeSource, private: Wheel):
    """What was built on another machine is not here."""
    from dataclasses import replace

    with pytest.raises(FetchError, match="neither on this one nor kept beside the lock"):
        gathered(source(), spec_of(replace(private, url="")))


def test_it_stops_when_it_should(source: MakeSource, index: PackageIndex, private: Wheel):
    """Between chunks of a download."""
    stop = Cancellation()
    stop.cancel()
    made = source(environ={"PIP_INDEX_URL": index.url_with_credentials})
    with (
        pytest.raises(CancelledError),
        made.gather(spec_of(private), LineProgress(lambda _: None).image("step"), check=stop.check),
    ):
        pass


class TestTools:
    """What the program needs beside the standard library."""

    @staticmethod
    def order(materials: BuildMaterials) -> StageOrder:
        """Read the program's order."""
        with materials.files[ORDER].open() as stream:
            return StageOrder.parse(stream.read())

    def test_are_those_of_this_machine_for_all_that_may_build(self, source: MakeSource) -> None:
        """Of the versions that are installed here; rattler only where there are conda packages."""
        order = gathered(source(), spec_of(tool("demo", "1.0")), self.order)
        assert order.python == XY
        expected = [("isal", version("isal"))]
        assert {p: [(w.name, w.version) for w in wheels] for p, wheels in order.tools.items()} == {
            AMD64: expected,
            ARM64: expected,
        }

    def test_of_a_lock_with_conda_packages(self, source: MakeSource) -> None:
        """Rattler comes too."""
        package = CondaPackage(
            name="demo",
            version="1.0",
            build="0",
            build_number=0,
            subdir="linux-64",
            url="https://conda.example.org/linux-64/demo-1.0-0.conda",
            sha256="0" * 64,
            size_bytes=1,
            role="user",
        )
        order = gathered(source(), spec_of(package), self.order)
        assert [wheel.name for wheel in order.tools[AMD64]] == ["isal", "py-rattler"]

    def test_are_resolved_once_and_kept(self, source: MakeSource, resolver: FakeResolver) -> None:
        """Neither another image nor another deployment resolves them again."""
        made = source()
        gathered(made, spec_of(tool("demo", "1.0")))
        gathered(made, spec_of(tool("demo", "2.0")))
        gathered(source(), spec_of(tool("demo", "3.0")))
        assert [requirements.target.platform for requirements in resolver.asked] == [AMD64, ARM64]

    def test_without_arm64(self, source: MakeSource, notes: list[str]) -> None:
        """Builds run on amd64 then; once, a line says so."""
        made = source(resolver=FakeResolver(lacks=ARM64))
        for _ in range(2):
            assert list(gathered(made, spec_of(tool("demo", "1.0")), self.order).tools) == [AMD64]
        assert [note.partition(";")[0] for note in notes] == ["prebuilt: builds can run on linux/amd64 only"]

    def test_without_amd64(self, source: MakeSource) -> None:
        """There is no build without them."""
        with pytest.raises(ResolveError, match="there are no wheels"):
            gathered(source(resolver=FakeResolver(lacks=AMD64)), spec_of(tool("demo", "1.0")))

    def test_travel_like_packages(self, source: MakeSource, index: PackageIndex, home: Path) -> None:
        """Those of an index that the build cannot reach are in the context, for each platform, resolved by the real resolver."""
        for tag in ("py3-none-manylinux_2_17_x86_64", "py3-none-manylinux_2_28_aarch64"):
            index.add(make_wheel(home / tag, "isal", version("isal"), files={"isal.py": tag}, tag=tag))
        environ = {"UV_DEFAULT_INDEX": index.url_with_credentials, "HOME": str(home), "PATH": "/usr/bin"}
        made = source(environ=environ, resolver=LockResolver(Settings(environ, {})))
        files = [name for name in gathered(made, spec_of()) if name.startswith("tools/")]
        assert sorted(name.rpartition("-")[2] for name in files) == [
            "manylinux_2_17_x86_64.whl",
            "manylinux_2_28_aarch64.whl",
        ]


class TestSettings:
    """What the user may say."""

    def test_the_image_of_the_build_stage(self, source: MakeSource) -> None:
        """Which else is the base, or Python's own."""
        environ = {"METAFLOW_PREBUILT_BUILD_IMAGE": "registry.example.org/python:3"}
        context = gathered(source(environ=environ), spec_of(tool("demo", "1.0")))
        assert b"FROM --platform=$BUILDPLATFORM registry.example.org/python:3 AS tools" in context["Dockerfile"]

    def test_link_scripts(self, source: MakeSource) -> None:
        """The program heeds them as this machine would."""
        environ = {"METAFLOW_PREBUILT_LINK_SCRIPTS": "error"}
        order = gathered(source(environ=environ), spec_of(), TestTools.order)
        assert order.link_scripts == "error"

    @pytest.mark.parametrize("name", ["METAFLOW_PREBUILT_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"])
    def test_certificates(self, source: MakeSource, home: Path, name: str) -> None:
        """A file of authorities goes along; without one there is none."""
        (home / "ca.pem").write_text("authorities")
        assert "certificates.pem" not in gathered(source(), spec_of())
        assert gathered(source(environ={name: str(home / "ca.pem")}), spec_of())["certificates.pem"] == b"authorities"

    def test_certificates_of_two_settings(self, source: MakeSource, home: Path) -> None:
        """Both are trusted."""
        for name in ("one", "two"):
            (home / name).write_text(name)
        environ = {"SSL_CERT_FILE": str(home / "one"), "METAFLOW_PREBUILT_CA_BUNDLE": str(home / "two")}
        assert gathered(source(environ=environ), spec_of())["certificates.pem"] == b"one\ntwo"

    @pytest.mark.parametrize("name", ["METAFLOW_PREBUILT_CA_BUNDLE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
    def test_certificates_of_a_folder(self, source: MakeSource, home: Path, name: str) -> None:
        """All of them go along, each once and by name, whatever order the disk has them in; what is no certificate does not."""
        one, two = (
            f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----".encode() for text in ("one", "two")
        )
        for folder, order in (("a", (1, 0)), ("b", (0, 1))):
            files = [("ca-1.pem", one), ("ca-2.crt", two)]
            (home / folder).mkdir()
            for number in order:
                (home / folder / files[number][0]).write_bytes(files[number][1])
            (home / folder / "9da13359.0").symlink_to("ca-1.pem")
            (home / folder / "README").write_text("not one")
            (home / folder / "gone.0").symlink_to("nowhere")
            context = gathered(source(environ={name: str(home / folder)}), spec_of())
            assert context["certificates.pem"] == one + b"\n" + two

    def test_certificates_that_are_not_there(self, source: MakeSource) -> None:
        """It is said here, not in the build."""
        with pytest.raises(SettingError, match="no such file"):
            gathered(source(environ={"SSL_CERT_FILE": "/nowhere.pem"}), spec_of())
