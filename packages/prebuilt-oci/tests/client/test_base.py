from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.canonical import canonical_json
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import BaseImageError, CancelledError, DigestMismatchError, RateLimitedError, RegistryError
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.core.spec import BasePython
from prebuilt.core.tree import BytesContent, Entry, FileEntry, SymlinkEntry
from prebuilt.oci.base import BaseImageLookup
from prebuilt.oci.documents import RepositoryDocuments
from prebuilt.oci.image import ImageManifest
from prebuilt.oci.layer import write_layer
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from prebuilt.oci.repository import Repository
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.registry import InMemoryRegistry

AMD64 = Platform.parse("linux/amd64")
ARM64 = Platform.parse("linux/arm64")

GLIBC = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u4) stable release version 2.36.\n\0"
STDLIB = {f"usr/local/lib/python3.11/{name}": b"" for name in ("os.py", "json/__init__.py", "ssl.py")}
SLIM: Mapping[str, bytes | str] = {
    "bin": "-> usr/bin",
    "usr/bin/bash": b"",
    "usr/bin/tar": b"",
    "usr/lib/x86_64-linux-gnu/libc.so.6": GLIBC,
    "usr/local/bin/python3.11": b"\x7fELF\0x3.99\x003.2.0\x003.11.7\0",
    "usr/local/bin/python3": "-> python3.11",
    **STDLIB,
}
"""What `python:3.11-slim` has, as far as it matters: contents by path, `-> target` for links."""


def entries(files: Mapping[str, bytes | str]) -> list[Entry]:
    """Return the files as they are put into a layer."""
    return [
        SymlinkEntry(path=path, target=content.removeprefix("-> "))
        if isinstance(content, str)
        else FileEntry(path=path, content=BytesContent(content), executable="bin/" in path)
        for path, content in files.items()
    ]


def push_image(
    repository: Repository, tag: str, files: Mapping[str, bytes | str], platform: Platform = AMD64, **env: str
) -> str:
    """Push an image of one layer; return its manifest's digest."""
    buffer = io.BytesIO()
    layer = write_layer(entries(files), buffer, compression="gzip")
    repository.push_blob(layer.descriptor, lambda: io.BytesIO(buffer.getvalue()))
    config = canonical_json(
        {
            "os": platform.os,
            "architecture": platform.architecture,
            "config": {"Env": [f"{name}={value}" for name, value in env.items()]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }
    )
    manifest = ImageManifest(config=push_bytes(repository, config, OCI_CONFIG), layers=(layer.descriptor,))
    return repository.put_manifest(tag, OCI_MANIFEST, manifest.to_bytes()).digest


def push_index(repository: Repository, tag: str, digests: Mapping[Platform, str]) -> None:
    """Push an index of images that are there."""
    manifests = []
    for platform, digest in digests.items():
        found = repository.resolve(digest)
        assert found is not None
        platform_json = {"os": platform.os, "architecture": platform.architecture}
        manifests.append(found.to_json() | {"platform": platform_json})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    repository.put_manifest(tag, OCI_INDEX, canonical_json(index))


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    """An empty image layout."""
    return LayoutRepository(tmp_path / "images")


@pytest.fixture
def look_up(tmp_path: Path, home: Path) -> Callable[..., BaseImageLookup]:
    """Makes a lookup with a cache of its own."""
    count = iter(range(10))

    def make(documents: RepositoryDocuments | None = None) -> BaseImageLookup:
        settings = Settings({"HOME": str(home)}, {})
        return BaseImageLookup(settings, documents, FolderDocuments(tmp_path / f"cache{next(count)}"))

    return make


@pytest.fixture
def base_registry(registry: InMemoryRegistry, open_repository: Callable[..., Repository]) -> InMemoryRegistry:
    """A registry with `python:3.11`, an index, and `python:single`."""
    repository = open_repository(registry.repository("python"))
    amd64 = push_image(repository, "single", SLIM)
    arm64 = push_image(repository, "arm", SLIM, ARM64)
    push_index(repository, "3.11", {ARM64: arm64, AMD64: amd64})
    registry.forget_requests()
    return registry


def test_an_index_is_named_beside_the_image_in_it(
    base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup], open_repository: Callable[..., Repository]
) -> None:
    """A build stage may need the base for another platform: by tag, by digest, asked or kept, its index is known."""
    repository = open_repository(base_registry.repository("python"))
    index, single = repository.resolve("3.11"), repository.resolve("single")
    assert index is not None
    assert single is not None
    lookup = look_up()
    for reference in (f"{repository.name}:3.11", f"{repository.name}:3.11", f"{repository.name}@{index.digest}"):
        found = lookup.get(reference, AMD64)
        assert (found.index_digest, found.digest) == (index.digest, single.digest)
    for reference in (f"{repository.name}:single", f"{repository.name}@{single.digest}"):
        assert lookup.get(reference, AMD64).index_digest is None


def test_a_pull_limit_is_explained_once(
    base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup]
) -> None:
    """Docker Hub's limit, here behind a mirror, is the likeliest failure of all: whose it is, what to do, no second try."""
    limit = {
        "ratelimit-limit": "100;w=21600",
        "ratelimit-remaining": "0;w=21600",
        "docker-ratelimit-source": "203.0.113.7",
    }
    base_registry.fail("*", "manifests", status=429, code="TOOMANYREQUESTS", headers=limit, times=9)
    with pytest.raises(RateLimitedError) as caught:
        look_up().get(base_registry.repository("python:3.11"), AMD64)
    assert "100 pulls in 6 hours for 203.0.113.7" in caught.value.reason
    assert "docker login" in caught.value.remedy
    assert caught.value.remedy.count("METAFLOW_PREBUILT_BASE_IMAGE") == 1
    assert base_registry.count(path="manifests") == 1


class TestFacts:
    def get(self, layout: LayoutRepository, lookup: BaseImageLookup, files: Mapping[str, bytes | str], **env: str):
        """Look up an image of `files`."""
        digest = push_image(layout, "base", files, **env)
        image = lookup.get(f"{layout.name}:base", AMD64)
        assert image.digest == digest
        return image

    def test_an_official_image(self, layout: LayoutRepository, look_up: Callable[..., BaseImageLookup]) -> None:
        """Python, its full version and the C library's are read off the files; links are followed."""
        image = self.get(layout, look_up(), SLIM)

        assert image.python == BasePython(path="/usr/local/bin/python3.11", version="3.11.7")
        assert (image.glibc, image.layer_count, image.platform) == ("2.36", 1, AMD64)
        assert (image.reference, image.repository) == (f"{layout.name}:base", layout.name)

    def test_the_first_python_on_path(self, layout: LayoutRepository, look_up: Callable[..., BaseImageLookup]) -> None:
        """PATH of the image decides; a script of that name is no interpreter."""
        conda = {path.replace("usr/local", "opt/conda").replace("3.11", "3.12"): data for path, data in STDLIB.items()}
        files = {
            **SLIM,
            **conda,
            "opt/shims/python3": b"#!/bin/sh\nexec python3.9\n",
            "opt/conda/bin/python3": "-> python3.12",
            "opt/conda/bin/python3.12": b"\x003.12.4\0",
        }
        path = "/opt/shims:/opt/conda/bin:/usr/local/bin:/usr/bin"

        image = self.get(layout, look_up(), files, PATH=path)

        assert image.python == BasePython(path="/opt/conda/bin/python3.12", version="3.12.4")

    def test_a_shared_libpython(self, layout: LayoutRepository, look_up: Callable[..., BaseImageLookup]) -> None:
        """Where the interpreter is a stub its library has the version."""
        files = {
            **SLIM,
            "usr/local/bin/python3.11": b"\x7fELF",
            "usr/local/lib/libpython3.11.so.1.0": b"\0/python-3.11.5+\0",
        }

        assert self.get(layout, look_up(), files).python == BasePython(
            path="/usr/local/bin/python3.11", version="3.11.5"
        )

    @pytest.mark.parametrize("missing", [*STDLIB, "usr/local/bin/python3"])
    def test_a_python_that_is_not_whole_is_none(
        self, layout: LayoutRepository, look_up: Callable[..., BaseImageLookup], missing: str
    ) -> None:
        """Without its standard library, or its name, Python comes from elsewhere."""
        files = {path: data for path, data in SLIM.items() if path != missing}

        assert self.get(layout, look_up(), files).python is None

    @pytest.mark.parametrize(
        ("missing", "words"),
        [
            ("usr/bin/bash", "it has no bash"),
            ("usr/bin/tar", "it has no tar"),
            ("usr/lib/x86_64-linux-gnu/libc.so.6", "it has no GNU C library"),
        ],
    )
    def test_what_every_task_needs(
        self, layout: LayoutRepository, look_up: Callable[..., BaseImageLookup], missing: str, words: str
    ) -> None:
        """A base without it is refused by name, the second time too."""
        push_image(layout, "base", {path: data for path, data in SLIM.items() if path != missing})
        lookup = look_up()

        for _ in range(2):
            with pytest.raises(BaseImageError, match=words) as caught:
                lookup.get(f"{layout.name}:base", AMD64)
            assert "METAFLOW_PREBUILT_BASE_IMAGE" in str(caught.value)

    def test_alpine_is_refused(self, layout: LayoutRepository, look_up: Callable[..., BaseImageLookup]) -> None:
        """The message says that it has musl."""
        files = {path: data for path, data in SLIM.items() if "libc.so" not in path}
        push_image(layout, "base", {**files, "lib/ld-musl-x86_64.so.1": b""})

        with pytest.raises(BaseImageError, match="musl, not the GNU C library"):
            look_up().get(f"{layout.name}:base", AMD64)

    def test_another_architectures_libc_is_not_ours(
        self, layout: LayoutRepository, look_up: Callable[..., BaseImageLookup]
    ) -> None:
        """Of two C libraries the one of the image's architecture counts; old ones have the version in their name."""
        files = {path: data for path, data in SLIM.items() if "libc.so" not in path} | {
            "lib/i386-linux-gnu/libc.so.6": GLIBC,
            "lib/x86_64-linux-gnu/libc.so.6": "-> libc-2.28.so",
            "lib/x86_64-linux-gnu/libc-2.28.so": b"stripped",
        }

        assert self.get(layout, look_up(), files).glibc == "2.28"


class TestRegistry:
    def test_an_image_is_read_once_for_everybody(
        self,
        base_registry: InMemoryRegistry,
        open_repository: Callable[..., Repository],
        look_up: Callable[..., BaseImageLookup],
    ) -> None:
        """The first lookup reads the layers, another machine reads one document, the same machine asks for the digest alone."""
        documents = RepositoryDocuments(open_repository(base_registry.repository("team/app")))
        reference = base_registry.repository("python") + ":3.11"
        first, second = look_up(documents), look_up(documents)
        image = first.get(reference, AMD64)
        assert base_registry.count("GET", "python/blobs") == 2

        base_registry.forget_requests()
        assert second.get(reference, AMD64) == image
        assert (
            [str(request).replace(image.digest, "") for request in base_registry.requests]
            == [
                "HEAD /v2/python/manifests/3.11",
                f"GET {base_registry.requests[1].path}",  # the index
                f"GET /v2/team/app/manifests/base-facts-v1-{image.digest[7:47]}",
            ]
        )

        base_registry.forget_requests()
        assert first.get(reference, AMD64) == image
        assert [str(request) for request in base_registry.requests] == ["HEAD /v2/python/manifests/3.11"]

    def test_a_digest_is_not_asked_for_again(
        self, base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup]
    ) -> None:
        """What a digest names cannot change: no request at all."""
        lookup, name = look_up(), base_registry.repository("python")
        image = lookup.get(f"{name}:single", AMD64)
        lookup.get(f"{name}@{image.digest}", AMD64)
        base_registry.forget_requests()

        assert lookup.get(f"{name}@{image.digest}", AMD64).digest == image.digest
        assert base_registry.requests == []

    def test_a_moved_tag_is_noticed(
        self,
        base_registry: InMemoryRegistry,
        open_repository: Callable[..., Repository],
        look_up: Callable[..., BaseImageLookup],
    ) -> None:
        """A tag is never answered from memory."""
        lookup, name = look_up(), base_registry.repository("python")
        before = lookup.get(f"{name}:single", AMD64)
        push_image(open_repository(name), "single", {**SLIM, "usr/local/bin/python3.11": b"\x003.11.8\0"})

        after = lookup.get(f"{name}:single", AMD64)

        assert before.python is not None
        assert after.python is not None
        assert (before.python.version, after.python.version) == ("3.11.7", "3.11.8")

    def test_an_index_gives_the_platforms_own(
        self, base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup]
    ) -> None:
        """Each platform is pinned to its own manifest."""
        lookup, reference = look_up(), base_registry.repository("python") + ":3.11"

        with pytest.raises(BaseImageError, match="GNU C library"):  # that of the other architecture does not count
            lookup.get(reference, ARM64)
        assert (
            lookup.get(reference, AMD64).digest
            == lookup.get(base_registry.repository("python") + ":single", AMD64).digest
        )

    def test_another_platform_is_refused_before_layers_are_read(
        self, base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup]
    ) -> None:
        """The config of a single manifest says what it runs on."""
        with pytest.raises(BaseImageError, match="for linux/arm64 only; set METAFLOW_PREBUILT_BASE_IMAGE"):
            look_up().get(base_registry.repository("python") + ":arm", AMD64)
        assert base_registry.count("GET", "blobs") == 1

    def test_an_index_without_the_platform_is_refused(
        self,
        base_registry: InMemoryRegistry,
        open_repository: Callable[..., Repository],
        look_up: Callable[..., BaseImageLookup],
    ) -> None:
        """The message names the platforms that there are."""
        repository = open_repository(base_registry.repository("python"))
        arm64 = repository.resolve("arm")
        assert arm64 is not None
        push_index(repository, "only-arm", {ARM64: arm64.digest})

        with pytest.raises(BaseImageError, match="for linux/arm64 only; set METAFLOW_PREBUILT_BASE_IMAGE"):
            look_up().get(f"{repository.name}:only-arm", AMD64)

    def test_an_absent_image_is_named(
        self, base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup], tmp_path: Path
    ) -> None:
        """With the setting that chooses another one, be it of a registry or of a layout."""
        for repository in (base_registry.repository("python"), f"oci:{tmp_path}/bases"):
            reference = f"{repository}:3.99"
            with pytest.raises(BaseImageError, match=f"{reference}: it is not there.*METAFLOW_PREBUILT_BASE_IMAGE"):
                look_up().get(reference, AMD64)

    def test_what_is_no_reference_is_named(self, look_up: Callable[..., BaseImageLookup]) -> None:
        """With the setting that may have given it."""
        with pytest.raises(
            BaseImageError, match=r"at Upper case: this is no image reference.*METAFLOW_PREBUILT_BASE_IMAGE"
        ):
            look_up().get("Upper case", AMD64)

    def test_a_registry_that_is_down_is_no_absence(
        self, base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup]
    ) -> None:
        """The registry's own error comes through, with the setting that chooses another image."""
        base_registry.fail("HEAD", "manifests", status=403)

        with pytest.raises(RegistryError, match=r"403.*METAFLOW_PREBUILT_BASE_IMAGE"):
            look_up().get(base_registry.repository("python") + ":3.11", AMD64)

    def test_a_damaged_layer_gives_no_facts(
        self, base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup]
    ) -> None:
        """What was read of a layer whose digest is wrong is thrown away, and the next lookup reads again."""
        lookup, reference = look_up(), base_registry.repository("python") + ":single"
        base_registry.corrupt("blobs")
        with pytest.raises((DigestMismatchError, BaseImageError)):
            lookup.get(reference, AMD64)

        assert lookup.get(reference, AMD64).glibc == "2.36"

    def test_damaged_documents_are_made_anew(
        self, base_registry: InMemoryRegistry, look_up: Callable[..., BaseImageLookup]
    ) -> None:
        """A cache that was tampered with costs time and nothing else."""
        lookup, reference = look_up(), base_registry.repository("python") + ":3.11"
        image = lookup.get(reference, AMD64)
        assert isinstance(lookup.cache, FolderDocuments)
        for path in lookup.cache.folder.iterdir():
            path.write_bytes(b"{}")

        assert lookup.get(reference, AMD64) == image

    def test_a_damaged_document_of_the_repository_is_made_anew(
        self,
        base_registry: InMemoryRegistry,
        open_repository: Callable[..., Repository],
        look_up: Callable[..., BaseImageLookup],
    ) -> None:
        """Also where the registry is what damaged it."""
        documents = RepositoryDocuments(open_repository(base_registry.repository("team/app")))
        reference = base_registry.repository("python") + ":3.11"
        image = look_up(documents).get(reference, AMD64)
        base_registry.corrupt("team/app/manifests/base-facts")

        assert look_up(documents).get(reference, AMD64) == image


def test_a_kept_layout_image_needs_no_http_client(
    layout: LayoutRepository, look_up: Callable[..., BaseImageLookup]
) -> None:
    """The fast path reads local files: neither the HTTP client nor what unpacks layers is imported."""
    push_image(layout, "base", SLIM)
    lookup = look_up()
    lookup.get(f"{layout.name}:base", AMD64)
    assert isinstance(lookup.cache, FolderDocuments)
    script = f"""
import sys
from pathlib import Path
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.platforms import Platform
from prebuilt.core.settings import Settings
from prebuilt.oci.base import BaseImageLookup
lookup = BaseImageLookup(Settings({{}}, {{}}), None, FolderDocuments(Path({str(lookup.cache.folder)!r})))
assert lookup.get({f"{layout.name}:base"!r}, Platform.parse("linux/amd64")).glibc == "2.36"
print(sorted({{"httpx2", "zstandard", "isal", "tarfile"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_reading_a_base_image_can_be_stopped(layout: LayoutRepository, look_up: Callable[..., BaseImageLookup]) -> None:
    """What `check` raises comes out, and nothing is kept; it is not called where nothing has to be read."""
    push_image(layout, "base", SLIM)
    lookup, reference, cancellation = look_up(), f"{layout.name}:base", Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        lookup.get(reference, AMD64, check=cancellation.check)
    image = lookup.get(reference, AMD64)
    assert lookup.get(reference, AMD64, check=cancellation.check) == image
