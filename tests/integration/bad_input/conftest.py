"""A place where flows go wrong: an index, a registry and base images of the test's own, and nothing of the user's."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prebuilt.core.canonical import canonical_json
from prebuilt.core.platforms import Platform
from prebuilt.core.tree import BytesContent, Entry, FileEntry, SymlinkEntry
from prebuilt.oci.compression import decompress
from prebuilt.oci.image import ImageManifest, descriptor_of
from prebuilt.oci.layer import write_layer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from prebuilt.oci.open import open_repository
from prebuilt.oci.repository import Repository
from prebuilt.testing.python_index import PackageIndex, make_wheel
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.validate import validate

FLOW = Path(__file__).parent / "flow" / "asking.py"  # alone in its folder, all of which goes into the code package
XY = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = ".".join(map(str, sys.version_info[:3]))
HOST = Platform.parse("linux-aarch64" if os.uname().machine in {"aarch64", "arm64"} else "linux-64")
_TRIPLET = "aarch64-linux-gnu" if HOST.architecture == "arm64" else "x86_64-linux-gnu"

_REGISTRY_PLUGIN = '''"""A site's registry: a repository whose name is in the environment."""
import os

from prebuilt.oci.registry import RepositoryRegistry


class SiteRegistry(RepositoryRegistry):
    def __init__(self):
        super().__init__(os.environ["SITE_REPOSITORY"])
'''


def base_files(*, without: str = "") -> dict[str, bytes | str]:
    """Return what a base image is known by, as paths and contents; ``-> x`` is a link. It is not to be run."""
    files: dict[str, bytes | str] = {
        "usr/bin/bash": b"",
        "usr/bin/tar": b"",
        f"usr/lib/{_TRIPLET}/libc.so.6": b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n\0",
        f"usr/local/bin/python{XY}": f"\x7fELF\0{PYTHON}\0".encode(),
        "usr/local/bin/python3": f"-> python{XY}",
        **{f"usr/local/lib/python{XY}/{name}": b"" for name in ("os.py", "json/__init__.py", "ssl.py")},
    }
    return {path: content for path, content in files.items() if not without or without not in path}


def _push_base(repository: Repository, tag: str, *, without: str = "", platform: Platform = HOST) -> str:
    """Push a base image of one small layer, or one that lacks every path with `without` in it; return its reference."""
    entries: list[Entry] = [
        SymlinkEntry(path=path, target=content.removeprefix("-> "))
        if isinstance(content, str)
        else FileEntry(path=path, content=BytesContent(content), executable="bin/" in path)
        for path, content in sorted(base_files(without=without).items())
    ]
    buffer = io.BytesIO()
    layer = write_layer(entries, buffer, compression="gzip")
    config = canonical_json(
        {
            "os": platform.os,
            "architecture": platform.architecture,
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
    )
    descriptor = descriptor_of(config, OCI_CONFIG)
    repository.push_blob(layer.descriptor, lambda: io.BytesIO(buffer.getvalue()))
    repository.push_blob(descriptor, lambda: io.BytesIO(config))
    manifest = ImageManifest(config=descriptor, layers=(layer.descriptor,))
    repository.put_manifest(tag, OCI_MANIFEST, manifest.to_bytes())
    return f"{repository.name}:{tag}"


@dataclass(frozen=True)
class Outcome:
    """What a command printed, both streams together, and how it ended."""

    text: str
    code: int

    @property
    def message(self) -> str:
        """The one message of a run that ended with an error of ours: what follows its headline, as one line.

        Anything but one clean message is a failure of the test: a traceback, a second message, a run that came through.
        """
        assert self.code == 1, self.text
        assert "Traceback" not in self.text, self.text
        assert "Internal error" not in self.text, self.text
        messages = re.findall(r"^ {4}Prebuilt environment:\n((?: {4}.*\n?)+)", self.text, re.MULTILINE)
        assert len(messages) == 1, self.text
        return " ".join(messages[0].split())

    @property
    def deployed(self) -> bool:
        """Whether images were there in the end. Tasks fail: the base image is not to be run."""
        return "Workflow starting" in self.text


@dataclass(frozen=True)
class Place:
    """A folder in which flows run, with a cache and a datastore of its own.

    Attributes:
        variables: Of the environment, none of them the user's but PATH.
        secrets: What no output may show.
    """

    folder: Path
    variables: dict[str, str]
    secrets: list[str] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        """The cache folder of all packages of ours."""
        return Path(self.variables["METAFLOW_PREBUILT_CACHE_DIR"])

    @property
    def layout(self) -> Path:
        """The image layout."""
        return self.cache / "layout"

    @staticmethod
    def command(*arguments: str) -> list[str]:
        """Return the command line of the flow: ``run --with container`` unless there are `arguments`."""
        arguments = arguments or ("run", "--with", "container")
        return [sys.executable, str(FLOW), "--environment=prebuilt", "--no-pylint", *arguments]

    def start(
        self,
        *arguments: str,
        pypi: Mapping[str, str] | None = None,
        conda: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        stderr: int = subprocess.STDOUT,
        **variables: str,
    ) -> subprocess.Popen[str]:
        """Start the flow, by the command `prefix`. It asks for packages; `variables` are laid over those of the place."""
        asked = {"ASKED_OF_PYPI": json.dumps(pypi or {}), "ASKED_OF_CONDA": json.dumps(conda or {})}
        return subprocess.Popen(
            [*prefix, *self.command(*arguments)],
            cwd=self.folder,
            env={**self.variables, **asked, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **asked: Any) -> Outcome:
        """Run the flow, started by :meth:`start`, to its end."""
        with self.start(*arguments, **asked) as process:
            try:
                text, _ = process.communicate(timeout=120)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return self.outcome(text, process.returncode)

    def outcome(self, text: str, code: int = 1) -> Outcome:
        """Return the outcome of a process, in whose text there is no secret."""
        for secret in self.secrets:
            assert secret not in text
        return Outcome(text, code)

    def is_intact(self, *, images: int) -> bool:
        """Check that the cache holds nothing half-made, and the layout as many images as told, valid to the last byte."""
        left = [path for name in ("downloads", "scratch", "work") for path in (self.cache / name).glob("*")]
        left += (self.layout / "blobs" / "sha256").glob(".*")
        assert left == []
        assert len(self.valid_images()) == images
        return True

    def valid_images(self) -> list[str]:
        """Return the tags of images in the layout, all of which are valid to the last byte."""
        repository = LayoutRepository(self.layout)
        tags = [tag for tag in repository.tags() if tag.startswith("v1-")]
        for tag in tags:
            validate(repository, tag)
        return tags

    def everything_in_images(self) -> bytes:
        """Return all bytes of the layout, those of layers uncompressed."""
        return b"\0".join(
            self.plain(path.read_bytes()) for path in sorted((self.layout / "blobs" / "sha256").iterdir())
        )

    @staticmethod
    def plain(data: bytes) -> bytes:
        """Return a blob's bytes, uncompressed where it is compressed."""
        for magic, media_type in ((b"\x1f\x8b", OCI_LAYER_GZIP), (b"\x28\xb5\x2f\xfd", OCI_LAYER_ZSTD)):
            if data.startswith(magic):
                return b"".join(decompress(iter([data]), media_type))
        return data

    def forget_layers(self) -> None:
        """Remove what is known about layers, so that all are made again."""
        path = self.layout / "index.json"
        index = json.loads(path.read_bytes())
        index["manifests"] = [
            manifest
            for manifest in index["manifests"]
            if not manifest["annotations"]["org.opencontainers.image.ref.name"].startswith("layers-")
        ]
        path.write_text(json.dumps(index))


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """Return a package index with what Metaflow's runtime asks for, and with a package for each kind of trouble."""
    wheels = tmp_path_factory.mktemp("wheels")
    with PackageIndex().serving() as index:
        for name in ("requests", "fine"):
            index.add(make_wheel(wheels, name, "2.32"))
        yield index


@pytest.fixture
def registry() -> Iterator[InMemoryRegistry]:
    """Return a registry with a base image."""
    with InMemoryRegistry() as registry:
        _push_base(open_repository(registry.repository("base")), "python")
        registry.forget_requests()
        yield registry


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a base image in a layout; it is not to be run."""
    return _push_base(open_repository(f"oci:{tmp_path_factory.mktemp('base')}"), "python")


@pytest.fixture
def push_base() -> Callable[..., str]:
    """Return a function that puts a base image into a layout: ``(folder, tag, without=…, platform=…)``; gives its reference."""
    return lambda folder, tag, **what: _push_base(open_repository(f"oci:{folder}"), tag, **what)


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of importable plugins: the registry ``site``."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "site_registry.py").write_text(_REGISTRY_PLUGIN)
    info = folder / "site_registry-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: site-registry\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[metaflow_prebuilt.image_registries]\nsite = site_registry:SiteRegistry\n")
    return folder


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache for uv that all tests share."""
    return tmp_path_factory.mktemp("uv")


@pytest.fixture
def place(tmp_path: Path, index: PackageIndex, base: str, plugins: Path, uv_cache: Path) -> Place:
    """Return a place with an empty cache, whose images go to a layout unless a test says otherwise."""
    (tmp_path / "home").mkdir()
    return Place(
        tmp_path,
        {
            "HOME": str(tmp_path / "home"),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(plugins),
            "METAFLOW_HOME": str(tmp_path / "home" / "metaflow"),
            "METAFLOW_USER": "tester",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(tmp_path),
            "METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "cache"),
            "METAFLOW_PREBUILT_BASE_IMAGE": base,
            "METAFLOW_PREBUILT_BUILD_SERVICE": "native",
            "METAFLOW_PREBUILT_CONTAINER_ENGINE": "rootless",
            "METAFLOW_PREBUILT_IMAGE_REGISTRY": "layout",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index.url,
            "UV_CACHE_DIR": str(uv_cache),
        },
    )


@pytest.fixture
def in_registry(place: Place, registry: InMemoryRegistry) -> Place:
    """Return the place with images, and the base image, in a registry."""
    place.variables["METAFLOW_PREBUILT_IMAGE_REGISTRY"] = "site"
    place.variables["METAFLOW_PREBUILT_BASE_IMAGE"] = f"{registry.repository('base')}:python"
    place.variables["SITE_REPOSITORY"] = registry.repository("site/images")
    return place
