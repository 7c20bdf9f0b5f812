"""The program of a build stage, run by a bare Python: its layers are those of the native builder, and its failures are one line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.layer_source import LayerSource
from prebuilt.core.lock import CondaPackage, LockedPackage, Wheel
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BasePython
from prebuilt.core.tree import Entry
from prebuilt.lock.bytecode import BytecodeCompiler
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.installer import PackageInstaller
from prebuilt.lock.stage.order import ORDER, StageOrder
from prebuilt.lock.stage.program import program_bytes
from prebuilt.lock.virtualenv import virtualenv_entries
from prebuilt.oci.layer import write_layer
from prebuilt.testing.conda_channel import CondaChannel, ServedChannel, serve_channel
from prebuilt.testing.installed_wheel import installed_wheel
from prebuilt.testing.python_index import PackageIndex, make_wheel

XY = "{}.{}".format(*sys.version_info)
AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
KEY = "0123456789" * 4

MakeWheel = Callable[..., Wheel]
Lock = Callable[..., CondaPackage]
Node = tuple[str, int, float, bytes]


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    """Give an index on loopback."""
    with PackageIndex().serving() as index:
        yield index


def wheel_of(path: Path, index: PackageIndex) -> Wheel:
    """Have the index serve the wheel at `path`, and lock it."""
    index.add(path)
    name, version = path.name.split("-")[:2]
    data = path.read_bytes()
    return Wheel(
        name=name.replace("_", "-"),
        version=version,
        filename=path.name,
        url=f"{index.url.removesuffix('/simple')}/files/{path.name}",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        role="user",
    )


@pytest.fixture(scope="module")
def tools(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> tuple[Wheel, ...]:
    """Give the tools for both kinds of packages: those of this environment."""
    folder = tmp_path_factory.mktemp("wheels")
    return tuple(wheel_of(installed_wheel(folder, name), index) for name in ("isal", "py-rattler"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder in which the tools are kept for all tests: a stage installs them once, too."""
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def served(channel: CondaChannel) -> Iterator[ServedChannel]:
    """Give the sample channel behind HTTP."""
    with serve_channel(channel) as served:
        yield served


@pytest.fixture
def wheel(index: PackageIndex, tmp_path: Path) -> MakeWheel:
    """Give a function that makes a wheel that the index serves."""
    return lambda name, **parts: wheel_of(make_wheel(tmp_path / "made", name, "1.0", **parts), index)


@dataclass(frozen=True)
class Stage:
    """The folder of a build stage, and a Python that has nothing but its standard library."""

    folder: Path
    tools: tuple[Wheel, ...]

    def write(self, *sources: LayerSource, **order: Any) -> None:
        """Write down what a Dockerfile copies."""
        (self.folder / "layers").mkdir(exist_ok=True)
        whole = StageOrder(**{"python": XY, "tools": {Platform.host(): self.tools}, "link_scripts": "warn", **order})
        (self.folder / ORDER).write_bytes(whole.to_bytes())
        (self.folder / "materialise.pyz").write_bytes(program_bytes())
        for source in sources:
            (self.folder / "layers" / f"{source.key}.json").write_bytes(source.to_bytes())

    def run(self, umask: int = 0o022, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the program, as a build stage does."""
        return subprocess.run(
            [sys._base_executable, "-I", "-S", self.folder / "materialise.pyz"],
            env={"PATH": os.defpath, **environ},
            cwd="/",
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def made(self, key: str = KEY) -> dict[str, Node]:
        """Return what was made: kind, mode, time, and bytes or target of each path."""
        root = self.folder / "made" / key
        return {
            (Path(at) / name).relative_to(root).as_posix(): _node(Path(at) / name)
            for at, folders, files in os.walk(root)
            for name in (*folders, *files)
        }


def _node(path: Path) -> Node:
    facts = path.lstat()
    if path.is_symlink():
        return "link", 0, facts.st_mtime, os.fsencode(path.readlink())
    mode, content = facts.st_mode & 0o7777, b"" if path.is_dir() else path.read_bytes()
    return "folder" if path.is_dir() else "file", mode, facts.st_mtime, content


@pytest.fixture
def stage(tmp_path: Path, tools: tuple[Wheel, ...], installed: Path) -> Stage:
    """Give a stage that has what others have installed."""
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "tools").symlink_to(installed)
    return Stage(folder, tools)


def source_of(*packages: LockedPackage, **changes: Any) -> LayerSource:
    """Describe a layer of `packages`."""
    facts = {
        "key": KEY,
        "kind": "packages",
        "packages": packages,
        "python_version": platform.python_version(),
        "site_packages": f"lib/python{XY}/site-packages",
        "platform": AMD64,
        "bytecode": True,
        "base_python": None,
    }
    return LayerSource(**{**facts, **changes})


@pytest.fixture
def native(tmp_path: Path) -> Callable[[LayerSource], dict[str, Node]]:
    """Give a function that writes a layer as the native builder does, and reads what is in it."""

    def write(source: LayerSource) -> dict[str, Node]:
        target = InstallTarget(
            python_version=source.python_version, platform=source.platform, site_packages=source.site_packages
        )
        with ExitStack() as stack:
            files = stack.enter_context(PackageFiles(Settings({}, {}), IndexConfig(), tmp_path / "cache"))
            compiler = stack.enter_context(BytecodeCompiler(Path(sys.executable), XY)) if source.bytecode else None
            installer = PackageInstaller(files, target, compiler=compiler, work_dir=tmp_path / "work")
            entries: list[Entry] = []
            if source.kind == "interpreter":
                assert source.base_python is not None
                entries = virtualenv_entries(source.base_python, target)
            for package in source.packages:
                entries += stack.enter_context(installer.entries(package))
            layer = io.BytesIO()
            write_layer(entries, layer, compression="gzip")
        layer.seek(0)
        with tarfile.open(fileobj=layer, mode="r:gz") as tar:
            return {member.name: _member(tar, member) for member in tar}

    return write


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Node:
    if member.issym():
        return "link", 0, member.mtime, member.linkname.encode()
    content = tar.extractfile(member)
    return "file" if content else "folder", member.mode, member.mtime, content.read() if content else b""


def make_same(stage: Stage, native: Callable[..., Any], source: LayerSource, **run: Any) -> dict[str, Node]:
    """Make a layer in a stage and natively, and return it; they do not differ in anything."""
    stage.write(source)
    done = stage.run(**run)
    assert (done.returncode, done.stderr) == (0, "")
    made, expected = stage.made(source.key), native(source)
    assert sorted(made) == sorted(expected)
    assert {path: node for path, node in made.items() if node != expected[path]} == {}
    return made


def rich_wheel(wheel: MakeWheel) -> Wheel:
    """Return a wheel with everything that a wheel can have."""
    return wheel(
        "rich",
        files={
            "rich.py": "def main():\n    pass\n",
            "rich/tests/test_it.py": "",
            "rich/broken.py": "def (",
            "rich-1.0.data/scripts/run": "#!python\nprint('run')\n",
            "rich-1.0.data/data/share/rich/data.txt": "data\n",
            "rich-1.0.data/headers/rich.h": "// header\n",
            "rich-1.0.data/purelib/pure.py": "PURE = {'a', 'b'}\n",
        },
        dist_info={"entry_points.txt": "[console_scripts]\nrich = rich:main\n"},
    )


class TestSameFiles:
    """What the program makes is what the native builder puts into a layer: paths, bytes, modes, times and links."""

    def test_of_wheels(self, stage: Stage, native: Callable[..., Any], wheel: MakeWheel) -> None:
        """Scripts, entry points, data, headers; sources that do not compile; whatever the umask."""
        made = make_same(stage, native, source_of(rich_wheel(wheel), wheel("other")), umask=0o077)
        assert made["opt/prebuilt/env/bin/rich"][:2] == ("file", 0o755)
        assert any(path.endswith(".pyc") for path in made)

    def test_of_wheels_without_bytecode(self, stage: Stage, native: Callable[..., Any], wheel: MakeWheel) -> None:
        """Where the spec wants none, none is made."""
        made = make_same(stage, native, source_of(rich_wheel(wheel), bytecode=False))
        assert not any(path.endswith(".pyc") for path in made)

    def test_of_an_interpreter(self, stage: Stage, native: Callable[..., Any]) -> None:
        """The virtual environment that leads to the base's Python."""
        python = BasePython(path="/usr/local/bin/python3", version=platform.python_version())
        made = make_same(stage, native, source_of(kind="interpreter", base_python=python))
        assert made["opt/prebuilt/env/bin/python"] == ("link", 0, 0, b"/usr/local/bin/python3")

    def test_of_conda_packages(
        self, stage: Stage, native: Callable[..., Any], conda_package: Lock, served: ServedChannel
    ) -> None:
        """Prefixes in text and in binaries, links to everything and nothing, entry points of noarch packages."""
        names = ("linked", "prefixed", "scripted", "owner-one", "owner-two")
        greeter = conda_package("greeter", url=served.url, version="1.0")
        others = (conda_package(name, url=served.url) for name in names)
        made = make_same(stage, native, source_of(greeter, *others))
        assert made["opt/prebuilt/env/share/owned.txt"][3] == b"owner-two\n"
        assert made["opt/prebuilt/env/bin/greet"][1] == 0o755

    def test_of_conda_packages_where_nobody_is_trusted(self, stage: Stage, conda_package: Lock, tmp_path: Path) -> None:
        """An image without certificates makes them too, of what came along or is reached in the clear."""
        stage.write(source_of(conda_package("linked")))
        nothing = str(tmp_path / "nothing")
        done = stage.run(SSL_CERT_FILE=nothing, SSL_CERT_DIR=nothing, HOME=nothing)
        assert (done.returncode, done.stderr) == (0, "")

    def test_of_conda_packages_and_wheels(
        self, stage: Stage, native: Callable[..., Any], conda_package: Lock, wheel: MakeWheel
    ) -> None:
        """In one layer, the later one wins; conda packages that came as files of this machine are found there."""
        over = wheel("greeter", files={"greeter/__init__.py": "OVER = 1\n"})
        made = make_same(stage, native, source_of(conda_package("greeter", version="1.1"), over))
        assert made[f"opt/prebuilt/env/lib/python{XY}/site-packages/greeter/__init__.py"][3] == b"OVER = 1\n"

    def test_for_another_platform(
        self, stage: Stage, native: Callable[..., Any], conda_package: Lock, wheel: MakeWheel
    ) -> None:
        """Compiled code for arm64 is only copied, and noarch packages do not care."""
        packages = (
            conda_package("small-b", "linux-aarch64"),
            conda_package("greeter", version="1.1"),
            wheel(
                "native",
                files={"native.so": b"\x7fELF" + bytes(99)},
                tag=f"cp{XY.replace('.', '')}-none-manylinux_2_17_aarch64",
            ),
        )
        make_same(stage, native, source_of(*packages, platform=ARM64))

    def test_of_many_layers_at_once(self, stage: Stage, native: Callable[..., Any], wheel: MakeWheel) -> None:
        """As in the one stage of the plain form: each layer is as if it had been made alone."""
        sources = [source_of(wheel(f"one-{n}"), wheel(f"two-{n}"), key=f"{n}" * 40) for n in range(6)]
        stage.write(*sources)
        assert stage.run().returncode == 0
        for source in sources:
            assert stage.made(source.key) == native(source)


class TestTools:
    """What the program imports beside the standard library."""

    def test_are_installed_once(self, tmp_path: Path, tools: tuple[Wheel, ...], index: PackageIndex) -> None:
        """The first run, which has no layers, downloads them; a later one asks for nothing."""
        stage = Stage(tmp_path, tools[:1])
        stage.write()
        before = len(index.requests)
        assert stage.run().stdout == f"tool isal {tools[0].version}\n"
        assert len(index.requests) == before + 1
        assert (stage.run().stdout, len(index.requests)) == ("", before + 1)

    def test_may_come_along(
        self, tmp_path: Path, tools: tuple[Wheel, ...], index: PackageIndex, wheel: MakeWheel
    ) -> None:
        """Files of the context are used wherever the lock says that they are; so are packages."""
        demo = wheel("demo")
        stage = Stage(tmp_path, tools[:1])
        for folder, package in (("tools", tools[0]), ("packages", demo)):
            file = tmp_path / folder / package.sha256 / package.filename
            file.parent.mkdir(parents=True)
            served = index.file(package.filename)
            assert served is not None
            file.write_bytes(served.path.read_bytes())
        unreachable = replace(tools[0], url="http://127.0.0.1:9/isal.whl")
        stage.write(source_of(replace(demo, url="")), tools={Platform.host(): (unreachable,)})
        assert (stage.run().returncode, len(stage.made()) > 5) == (0, True)

    def test_of_a_wrong_hash_are_refused(self, tmp_path: Path, tools: tuple[Wheel, ...]) -> None:
        """Nothing of them is left."""
        stage = Stage(tmp_path, (replace(tools[0], sha256="0" * 64),))
        stage.write()
        assert "expected sha256:000" in failure(stage)
        assert not list((tmp_path / "tools").glob("installed*"))

    def test_are_for_machines_that_were_foreseen(self, stage: Stage) -> None:
        """A build machine of another kind is told so."""
        other = ARM64 if Platform.host() == AMD64 else AMD64
        stage.write(tools={other: stage.tools})
        assert f"had tools for {other} only" in failure(stage)


def failure(stage: Stage, **run: Any) -> str:
    """Return the first line of a run that has to fail in a readable way."""
    done = stage.run(**run)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("prebuilt: tried to ")
    left = {path.name.partition("-")[0] for path in stage.folder.iterdir()}
    assert left <= {"layers", "made", "materialise.pyz", "packages", ORDER, "tools"}
    assert stage.made() == {}
    return done.stderr.splitlines()[0]


class TestFailures:
    """One line, exit status 1, and nothing half-made."""

    def test_a_package_that_is_not_there(self, stage: Stage, wheel: MakeWheel) -> None:
        """The line names it and where it was looked for; another says what helps where builds reach no index."""
        demo = wheel("demo")
        stage.write(source_of(replace(demo, url=f"{demo.url}.gone")))
        assert "download demo-1.0-py3-none-any.whl at http://127.0.0.1:" in failure(stage)
        assert "METAFLOW_PREBUILT_SEND_PACKAGES=1" in stage.run().stderr

    def test_a_package_that_is_not_what_was_locked(self, stage: Stage, wheel: MakeWheel) -> None:
        """It is not used."""
        stage.write(source_of(replace(wheel("demo"), sha256="0" * 64)))
        assert "expected sha256:000" in failure(stage)

    def test_another_python(self, stage: Stage) -> None:
        """The setting that chooses it is named."""
        stage.write(python="3.8")
        line = failure(stage)
        assert f"it has to have CPython 3.8, and this is CPython {XY}" in line
        assert "METAFLOW_PREBUILT_BUILD_IMAGE" in line

    def test_bytecode_of_another_python(self, stage: Stage, wheel: MakeWheel) -> None:
        """A layer for another Python is not compiled by this one."""
        stage.write(source_of(wheel("demo"), python_version="3.8.1"))
        assert "compile bytecode for Python 3.8" in failure(stage)

    def test_link_scripts_where_they_are_refused(self, stage: Stage, conda_package: Lock) -> None:
        """The setting of the deploying machine counts; otherwise a line says that they are not run."""
        source = source_of(conda_package("scripted"))
        stage.write(source, link_scripts="error")
        assert "link scripts are not run" in failure(stage)
        stage.write(source)
        assert "post-link script of conda package scripted is not run" in stage.run().stdout

    def test_packages_that_make_no_tree(self, stage: Stage, wheel: MakeWheel) -> None:
        """One package's file is another's folder: nothing is written through it."""
        stage.write(source_of(wheel("one", files={"same": "file"}), wheel("two", files={"same/inside": "file"})))
        assert "site-packages/same' as a tree of files: it is a folder, and also not one" in failure(stage)

    def test_a_damaged_description(self, stage: Stage) -> None:
        """It is said to be one."""
        stage.write()
        (stage.folder / "layers" / "x.json").write_text("{")
        assert "as a layer's source" in failure(stage)

    @pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', json.dumps({"format": 1, "python": "3.11"})])
    def test_a_damaged_order(self, stage: Stage, text: str) -> None:
        """It is said to be one."""
        stage.write()
        (stage.folder / ORDER).write_text(text)
        assert "the order of a build stage" in failure(stage)

    def test_certificates_that_are_none(self, stage: Stage) -> None:
        """The settings that name them are named."""
        stage.write()
        (stage.folder / "certificates.pem").write_text("no certificate")
        done = stage.run()
        assert (done.returncode, "METAFLOW_PREBUILT_CA_BUNDLE" in done.stderr) == (1, True)

    def test_a_failed_layer_leaves_the_others(self, stage: Stage, wheel: MakeWheel) -> None:
        """What was made stays and is not made again once the cause is gone."""
        good, bad = source_of(wheel("good")), source_of(replace(wheel("bad"), sha256="0" * 64), key="b" * 40)
        stage.write(good)
        assert stage.run().returncode == 0
        stage.write(bad)
        done = stage.run()
        assert (done.returncode, done.stdout) == (1, "")
        assert stage.made()


def test_each_package_is_a_line(stage: Stage, wheel: MakeWheel) -> None:
    """Whoever builds sees what is done."""
    stage.write(source_of(wheel("alpha"), wheel("beta")))
    assert stage.run().stdout.splitlines()[-3:] == ["alpha 1.0", "beta 1.0", f"layer {KEY[:12]} is made"]


def test_what_the_image_has_installed_is_not_seen(stage: Stage, wheel: MakeWheel, tmp_path: Path) -> None:
    """A module of the image that is called like ours, in its site-packages, changes nothing."""
    subprocess.run([sys._base_executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (theirs,) = (tmp_path / "venv").glob("lib/*/site-packages")
    for name in ("prebuilt", "isal", "rattler"):
        (theirs / name).mkdir()
        (theirs / name / "__init__.py").write_text("raise SystemExit('theirs')\n")
    stage.write(source_of(wheel("demo")))
    done = subprocess.run([python, "-I", stage.folder / "materialise.pyz"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_program_is_the_same_bytes_wherever_it_is_made(tmp_path: Path) -> None:
    """From a copy of the sources with other times, in another folder, by another process."""
    code = "import sys, prebuilt.lock.stage.program as p; sys.stdout.buffer.write(p.program_bytes())"
    here = program_bytes()
    elsewhere = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    assert elsewhere.stdout == here
    assert str(Path(__file__).parents[2]).encode() not in here


def test_an_old_python_says_what_it_lacks(stage: Stage) -> None:
    """Even one that cannot import the program."""
    pythons = sorted(Path.home().glob(".pyenv/versions/3.[789].*/bin/python"))
    if not pythons:
        pytest.skip("no Python older than 3.10 on this machine")
    stage.write()
    done = subprocess.run(
        [pythons[0], "-I", stage.folder / "materialise.pyz"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "it needs Python 3.10 or newer" in done.stderr
    assert "METAFLOW_PREBUILT_BUILD_IMAGE" in done.stderr
