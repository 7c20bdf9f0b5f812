"""Images of the native builder: skopeo and umoci accept them, nothing is missing in them, and what is in them runs."""

from __future__ import annotations

import base64
import csv
import json
import posixpath
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.lock import CondaPackage
from prebuilt.core.progress import LineProgress
from prebuilt.core.spec import PREFIX, BasePython
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.materialise import materialise
from prebuilt.oci.containers import Engine, open_engine
from prebuilt.testing.engines.wanted import wanted_program
from prebuilt.testing.image_tree import Tree, folder_tree, subtree, tree_differences
from prebuilt.testing.validate import ImageReport

pytestmark = pytest.mark.layout

XY = f"{sys.version_info[0]}.{sys.version_info[1]}"
CONDA = [
    "greeter",
    "prefixed",
    "linked",
    "large",
    "small-b",
    "requests",
    "compiled",
    "scripted",
    "owner-one",
    "owner-two",
]
KINDS = ["pypi", "conda", "mixed"]
IMPORTS = {
    "pypi": ["talker", "listener", "hefty"],
    "conda": ["greeter", "requests", "urllib3", "idna", "certifi", "charset_normalizer", "compiled", "ssl", "sqlite3"],
    "mixed": ["greeter", "talker", "listener", "compiled"],
}
DISTRIBUTIONS = {
    "pypi": {"talker": "1.0", "listener": "1.2", "hefty": "1.0"},
    "conda": {
        "requests": "2.32.3",
        "urllib3": "2.2.3",
        "idna": "3.10",
        "certifi": "2024.12.14",
        "charset-normalizer": "3.4.0",
    },
    "mixed": {"talker": "1.0", "listener": "1.2"},
}
COMMANDS = {
    "pypi": {"talk": "talker talks"},
    "conda": {"greet": "Good day", "prefixed": PREFIX},
    "mixed": {"talk": "talker talks"},
}

# Asks the import system for the code of every module below the folders that it is given, and says which are compiled for that.
_COMPILED = """
import importlib.machinery, importlib.util, json, os, sys
compiled, unbound, unstable, total, wrong = [], [], [], 0, []
class Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, **options):
        compiled.append(path)
        return super().source_to_code(data, path, **options)
for top in sys.argv[1:]:
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in ("test", "tests", "__pycache__")]
        for name in files:
            if not name.endswith(".py"):
                continue
            total += 1
            path = os.path.join(folder, name)
            if not os.path.getsize(importlib.util.cache_from_source(path)):
                unstable.append(path)
                continue
            code = Loader("m", path).get_code("m")
            if code.co_filename != path:
                wrong.append(path)
            with open(importlib.util.cache_from_source(path), "rb") as file:
                if file.read(8)[4:] != (1).to_bytes(4, "little"):
                    unbound.append(path)
print(json.dumps({"total": total, "compiled": compiled, "not unchecked-hash": unbound, "of another place": wrong, "unstable": unstable}))
"""


@dataclass(frozen=True)
class Oven:
    """Bakes environments of each kind into one layout, each once."""

    bakery: Any
    asked: dict[str, dict[str, Any]]
    baked: dict[tuple[str, str], Any]

    def bake(self, kind: str, compression: str = "zstd") -> Any:
        """Return the image of a kind of environment."""
        if (kind, compression) not in self.baked:
            bakery = replace(self.bakery, compression=compression)
            self.baked[kind, compression] = bakery.bake(**self.asked[kind])
        return self.baked[kind, compression]


@pytest.fixture(scope="module")
def oven(
    pantry: Any, base_image: str, tmp_path_factory: pytest.TempPathFactory, make_bakery: Callable[..., Any]
) -> Oven:
    """One layout for all tests of this file."""
    folder = tmp_path_factory.mktemp("oven")
    wheels = {"pypi": {"talker": "", "hefty": "1.0"}, "index": pantry.index.url}
    channels = {"channels": [pantry.channel.url]}
    asked = {
        "pypi": wheels,
        "conda": {"conda": dict.fromkeys(CONDA, ""), **channels},
        "mixed": {**channels, **wheels, "conda": {"greeter": "1.0", "compiled": ""}, "pypi": {"talker": ">=1"}},
    }
    return Oven(make_bakery(folder / "machine", f"oci:{folder / 'images'}"), asked, {})


@pytest.fixture(scope="module")
def engine(oven: Oven) -> Engine:
    """Containers without a daemon."""
    return open_engine("rootless", oven.bakery.settings)


@pytest.fixture
def report(oven: Oven, kind: str, base_report: ImageReport) -> ImageReport:
    """The image of a kind of environment, every digest and rule of it checked."""
    report: ImageReport = oven.bake(kind).validate(base_report)
    return report


def tool(*command: str) -> str:
    """Run a tool; what it said is part of the failure."""
    wanted_program(command[0], brought_by="apt-get install skopeo umoci")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_valid_and_whole(report: ImageReport, kind: str, oven: Oven) -> None:
    """All digests and rules hold, the base's layers are below, and every package left its record."""
    packages = oven.bake(kind).lock.packages
    conda = {p.filename.removesuffix(".conda") for p in packages if isinstance(p, CondaPackage)}
    wheels = {f"{p.name}-{p.version}.dist-info" for p in packages if not isinstance(p, CondaPackage)}
    environment = subtree(report.tree, PREFIX)
    assert {
        path.rpartition("/")[2].removesuffix(".json") for path in environment if path.startswith("conda-meta/")
    } == conda
    for wheel in wheels:
        assert f"lib/python{XY}/site-packages/{wheel}/RECORD" in environment
    assert {"pypi": len(wheels) == 3, "conda": len(conda) > len(CONDA), "mixed": bool(conda and wheels)}[kind]
    brought = {name for layer in report.layers[1:] for name in layer.nodes if layer.nodes[name].kind != "directory"}
    assert brought == {f"{PREFIX.lstrip('/')}/{path}" for path, node in environment.items() if node.kind != "directory"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_skopeo_inspects_and_copies(kind: str, compression: str, oven: Oven, tmp_path: Path) -> None:
    """It finds the digest, platform and variables that we meant, and accepts the bytes of each layer."""
    image = oven.bake(kind, compression)
    tag = tag_of(image)
    info = json.loads(tool("skopeo", "inspect", f"{oven.bakery.repository}:{tag}"))
    assert (info["Digest"], info["Architecture"], info["Os"]) == (image.digest, "amd64", "linux")
    assert "METAFLOW_SKIP_INSTALL_DEPENDENCIES=1" in info["Env"]
    assert any(value.startswith(f"PATH={PREFIX}/bin:") for value in info["Env"])
    tool("skopeo", "copy", "--quiet", f"{oven.bakery.repository}:{tag}", f"dir:{tmp_path / 'copy'}")
    copied = json.loads((tmp_path / "copy" / "manifest.json").read_bytes())
    assert [layer["digest"] for layer in copied["layers"]] == info["Layers"]


def tag_of(image: Any) -> str:
    """Return the tag under which a layout has an image."""
    index = json.loads((Path(image.reference.removeprefix("oci:").partition("@")[0]) / "index.json").read_bytes())
    [entry] = [entry for entry in index["manifests"] if entry["digest"] == image.digest]
    return str(entry["annotations"]["org.opencontainers.image.ref.name"])


@pytest.mark.parametrize("kind", KINDS)
def test_umoci_unpacks_the_union_of_the_layers(kind: str, oven: Oven, tmp_path: Path, base_report: ImageReport) -> None:
    """What is on disk afterwards is the tree that the layers describe: bytes, links, modes."""
    image = oven.bake(kind, "gzip")  # umoci of Debian 12 does not read zstd
    folder = oven.bakery.repository.removeprefix("oci:")
    tool("umoci", "unpack", "--rootless", "--image", f"{folder}:{tag_of(image)}", str(tmp_path / "bundle"))
    assert tree_differences(image.validate(base_report).tree, folder_tree(tmp_path / "bundle" / "rootfs")) == []
    config = json.loads((tmp_path / "bundle" / "config.json").read_bytes())
    assert f"PATH={PREFIX}/bin" in " ".join(config["process"]["env"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_holds_what_the_lock_is_made_of_locally(kind: str, oven: Oven, report: ImageReport) -> None:
    """The same files with the same bytes, but for bytecode, and for the prefix where it is written into them."""
    local = materialised(oven, kind)
    try:
        expected = folder_tree(local)
        environment = {path: node for path, node in subtree(report.tree, PREFIX).items() if "__pycache__" not in path}
        marker = {".prebuilt-environment.json"}
        assert environment.keys() == expected.keys() - marker
        blobs = dict(blobs_of(oven.bake(kind), report, environment))
        different = [
            path
            for path, node in environment.items()
            if not is_record(path)  # they hold hashes of files with the prefix in them
            and node.content != expected[path].content
            and blobs.get(path) != (local / path).read_bytes().replace(str(local).encode(), PREFIX.encode())
        ]
        assert different == []
        assert any(
            str(local).encode() in (local / path).read_bytes() for path in blobs
        )  # some have it, or this shows nothing
    finally:
        shutil.rmtree(local)


@pytest.mark.parametrize("kind", KINDS)
def test_records_tell_the_truth(kind: str, oven: Oven, report: ImageReport) -> None:
    """What RECORD and conda-meta say of files is so: each is there, with the hash that it is said to have."""
    environment = subtree(report.tree, PREFIX)
    overwritten = {"share/owned.txt"}
    told = 0
    for path, data in blobs_of(oven.bake(kind), report, environment):
        for file, digest in recorded(path, data):
            assert file in environment, f"{path} tells of {file}"
            if digest and environment[file].kind == "file" and file not in overwritten:
                assert environment[file].digest == f"sha256:{digest}", f"{path} tells of {file}"
                told += 1
    assert told > {"pypi": 10, "conda": 300, "mixed": 300}[kind]


def is_record(path: str) -> bool:
    """Return whether a file lists others with their hashes."""
    return path.startswith("conda-meta/") or path.endswith(".dist-info/RECORD")


def recorded(path: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield path below the prefix and sha256 of each file that a record lists; the hash is empty where there is none."""
    if path.startswith("conda-meta/"):
        for entry in json.loads(data)["paths_data"]["paths"]:
            yield entry["_path"], entry.get("sha256_in_prefix") or entry.get("sha256") or ""
    elif path.endswith(".dist-info/RECORD"):
        site_packages = path.rpartition("/")[0].rpartition("/")[0]
        for name, digest, _ in csv.reader(data.decode().splitlines()):
            raw = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=") if digest else b""
            yield posixpath.normpath(posixpath.join(site_packages, name)), raw.hex()


def materialised(oven: Oven, kind: str) -> Path:
    """Make the lock's environment at a prefix as long as the images': binaries are padded by what theirs is shorter."""
    import secrets

    folder = Path("/tmp", secrets.token_hex(16)[: len(PREFIX) - len("/tmp/")])
    lock = oven.bake(kind).lock
    cache = Path(oven.bakery.folder) / "cache"
    base = BasePython(path=f"/usr/local/bin/python{XY}", version=lock.python_version)
    with PackageFiles(oven.bakery.settings, IndexConfig.load(oven.bakery.settings), cache) as files:
        progress = LineProgress(lambda _: None).image("local")
        materialise(lock, folder, files=files, base=base, work_dir=cache / "work", progress=progress)
    return folder


def blobs_of(image: Any, report: ImageReport, environment: Tree) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of each file of the environment, as the layer that counts has it."""
    from prebuilt.oci.layer import read_layer

    for number, layer in enumerate(report.manifest.layers):
        with image.repository.open_blob(layer) as chunks:
            for member in read_layer(chunks, layer.media_type):
                path = member.info.name.removeprefix(f"{PREFIX.lstrip('/')}/")
                if member.content is not None and path in environment and environment[path].layer == number:
                    yield path, member.content.read()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_an_image_runs(kind: str, oven: Oven, engine: Engine, run_in_image: Callable[..., str]) -> None:
    """All packages are imported, all commands are on the PATH, and each distribution is seen with its version."""
    image = oven.bake(kind).reference
    program = (
        "import importlib, importlib.metadata, json, sys;"
        "[importlib.import_module(name) for name in sys.argv[1:]];"
        "seen = {each.name: each.version for each in importlib.metadata.distributions()};"
        "print(json.dumps([sys.prefix, sys.executable, seen]))"
    )
    told = run_in_image(engine, image, f"{PREFIX}/bin/python", "-c", program, *IMPORTS[kind])
    assert json.loads(told) == [PREFIX, f"{PREFIX}/bin/python", DISTRIBUTIONS[kind]]
    for command, says in COMMANDS[kind].items():
        assert run_in_image(engine, image, command).strip() == says
    which = run_in_image(engine, image, "bash", "-c", "command -v python python3")
    assert which.split() == [f"{PREFIX}/bin/python", f"{PREFIX}/bin/python3"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_loads_from_bytecode_that_does_not_age(
    kind: str, oven: Oven, engine: Engine, run_in_image: Callable[..., str]
) -> None:
    """Nothing is compiled at import, neither of the standard library nor of packages that brought bytecode bound to a time."""
    folder = f"{PREFIX}/lib/python{XY}" + ("/site-packages" if kind == "pypi" else "")
    told = run_in_image(engine, oven.bake(kind).reference, "python", "-B", "-c", _COMPILED, folder)
    assert loaded_from_bytecode(told) >= {"pypi": 4, "conda": 300, "mixed": 300}[kind]


def loaded_from_bytecode(told: str) -> int:
    """Return how many modules there are, all of which load from their bytecode."""
    found = json.loads(told)
    total, unstable = found.pop("total"), found.pop("unstable")
    assert found == {"compiled": [], "not unchecked-hash": [], "of another place": []}
    # Before 3.11 a set with None in it has another order in each process, so its module is left to be compiled there.
    assert len(unstable) <= (2 if sys.version_info < (3, 11) else 0), unstable
    return int(total)


def test_link_scripts_and_doubly_owned_files_are_named(oven: Oven, report_of: Callable[[str], ImageReport]) -> None:
    """The script did not run, the later owner's file is there, and one line says so for each."""
    image = oven.bake("conda")
    tree = subtree(report_of("conda").tree, PREFIX)
    assert "share/scripted.txt" in tree
    assert "share/scripted-ran.txt" not in tree
    assert image.said.count("the post-link script of conda package scripted is not run") == 1
    assert image.said.count("share/owned.txt") == 1


@pytest.fixture
def report_of(oven: Oven, base_report: ImageReport) -> Callable[[str], ImageReport]:
    """Return what validates the image of a kind."""
    return lambda kind: oven.bake(kind).validate(base_report)


def test_real_wheels_work(
    bakery: Any, engine: Engine, run_in_image: Callable[..., str], base_report: ImageReport
) -> None:
    """NumPy, from the configured package index, computes in its image; its own libraries are found, all its modules compiled."""
    image = bakery.bake(pypi={"numpy": ">=1.26"})
    image.validate(base_report)
    program = "import numpy, numpy.linalg; print(int(numpy.linalg.det(numpy.diag([2.0, 3.0])) + 0.5), numpy.__file__)"
    assert run_in_image(engine, image.reference, "python", "-c", program).split()[0] == "6"
    assert run_in_image(engine, image.reference, "f2py", "-v").strip() == image.lock.packages[0].version
    folder = f"{PREFIX}/lib/python{XY}/site-packages"
    told = run_in_image(engine, image.reference, "python", "-B", "-c", _COMPILED, folder)
    assert loaded_from_bytecode(told) > 100
