"""Images are complete, reproducible, and made of layers that are shared."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import (
    BaseImageError,
    BuildError,
    CancelledError,
    DigestMismatchError,
    FetchError,
    ForbiddenError,
    RegistryUnreachableError,
    StorageError,
)
from prebuilt.core.lock import Wheel
from prebuilt.core.plan import LARGE_BYTES
from prebuilt.core.settings import Settings
from prebuilt.lock.interpreter import find_interpreter
from prebuilt.native import layer_maker, workshop
from prebuilt.native.builder import NativeBuilder
from prebuilt.native.config import NativeConfig, layout_folder
from prebuilt.native.registry import LayoutRegistry
from prebuilt.oci.compression import decompress
from prebuilt.oci.image import ImageConfig, ImageManifest
from prebuilt.oci.layer import open_layer_tar
from prebuilt.testing.python_index import PackageIndex
from prebuilt.testing.registry import InMemoryRegistry
from prebuilt.testing.relay import relay
from prebuilt.testing.waiting import eventually

MakeWheel = Callable[..., Wheel]
SITE = f"opt/prebuilt/env/lib/python3.{sys.version_info.minor}/site-packages"


def files_of(bench: Any, manifest: Any) -> dict[str, bytes]:
    """Return the regular files of an image, by path, as its layers have them one above another."""
    files: dict[str, bytes] = {}
    for layer in bench.layers(manifest):
        with bench.open().open_blob(layer) as chunks, open_layer_tar(decompress(chunks, layer.media_type)) as tar:
            for member in tar:
                if member.isreg():
                    opened = tar.extractfile(member)
                    assert opened is not None
                    files[member.name] = opened.read()
    return files


def config_of(bench: Any, manifest: Any) -> ImageConfig:
    """Return an image's config."""
    found = bench.open().get_manifest(manifest.digest)
    with bench.open().open_blob(ImageManifest.parse(found.data).config) as chunks:
        return ImageConfig.parse(b"".join(chunks))


def test_an_image_holds_its_base_and_every_file_of_its_packages(bench: Any, wheel: MakeWheel) -> None:
    """Modules, metadata, bytecode and the virtual environment are there, above the base's own files."""
    image = bench.build(wheel("one"), wheel("two", padding=LARGE_BYTES))
    files = files_of(bench, image)
    assert files["etc/os-release"] == b"ID=base\n"
    assert files[f"{SITE}/one/__init__.py"] == b"__version__ = '1.0'\n"
    assert f"{SITE}/one/__pycache__/__init__.{sys.implementation.cache_tag}.pyc" in files
    assert f"{SITE}/two-1.0.dist-info/METADATA" in files
    assert b"home = /usr/local/bin" in files["opt/prebuilt/env/pyvenv.cfg"]
    assert bench.open().resolve("image") == image


def test_an_image_says_what_it_is_and_needs_no_activation(bench: Any, wheel: MakeWheel) -> None:
    """PATH leads to the environment, Metaflow installs nothing, labels name the lock, the base's entry point is gone."""
    spec = bench.spec(wheel("one"), labels={"team": "ml"})
    config = config_of(bench, NativeBuilder(bench.settings).build(bench.request(spec), bench.progress()))
    assert config.env["PATH"] == "/opt/prebuilt/env/bin:/usr/bin"
    assert config.env["METAFLOW_SKIP_INSTALL_DEPENDENCIES"] == config.env["OF_THE_BASE"] == "1"
    assert config.labels["metaflow-prebuilt.lock"] == spec.lock.content_id
    assert config.labels["team"] == "ml"
    assert "Entrypoint" not in json.loads(config.to_bytes())["config"]


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_the_same_lock_gives_the_same_digest_in_any_folder(
    bench: Any, wheel: MakeWheel, tmp_path: Path, compression: str
) -> None:
    """Another cache, another repository and another order of work change no byte."""
    packages = [wheel(f"p{n}") for n in range(5)] + [wheel("big", padding=LARGE_BYTES)]
    first = bench.build(*packages, compression=compression)
    elsewhere = Settings(
        {"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "other"), "METAFLOW_PREBUILT_LAYER_WORKERS": "1"}, {}
    )
    other = replace(bench, repository=f"oci:{tmp_path / 'elsewhere'}", settings=elsewhere)
    second = other.build(*reversed(packages), compression=compression)
    assert files_of(other, second) == files_of(bench, first)
    assert other.layers(second) == bench.layers(first)
    assert second.digest == first.digest


def test_layers_are_made_from_both_ends(layout_bench: Any, index: PackageIndex, wheel: MakeWheel) -> None:
    """The largest, which takes longest, and beside it the smallest, whose source is compiled meanwhile.

    The smallest of all is the interpreter's layer, which comes before them: nothing is fetched for it.
    """
    packages = [wheel("small"), *(wheel(f"large{factor}", padding=LARGE_BYTES * factor) for factor in (1, 2, 3))]
    one_at_a_time = Settings({**layout_bench.settings.environ, "METAFLOW_PREBUILT_LAYER_WORKERS": "1"}, {})
    replace(layout_bench, settings=one_at_a_time).build(*packages)
    fetched = [request.rpartition("/")[2].partition("-")[0] for request in index.requests]
    assert fetched == ["large3", "small", "large2", "large1"]


def test_nothing_of_this_machine_is_in_an_image(bench: Any, wheel: MakeWheel, tmp_path: Path) -> None:
    """No path of the cache or of the layout, in no file."""
    image = bench.build(wheel("one"))
    machine = str(tmp_path).encode()
    assert not [path for path, data in files_of(bench, image).items() if machine in data]


def test_a_layer_that_the_repository_has_is_neither_downloaded_nor_uploaded(
    registry_bench: Any, registry: InMemoryRegistry, index: PackageIndex, wheel: MakeWheel, tmp_path: Path
) -> None:
    """Also from a machine with empty caches: only the new package's file is fetched and its layer pushed."""
    shared = wheel("shared", padding=LARGE_BYTES)
    first = registry_bench.build(shared, wheel("old", padding=LARGE_BYTES))
    index.requests.clear()
    registry.forget_requests()
    fresh = Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / "fresh")}, {})
    new = wheel("new", padding=LARGE_BYTES)
    second = replace(registry_bench, settings=fresh).build(shared, new)
    assert {request.rpartition("/")[2] for request in index.requests} == {new.filename}
    in_common = set(registry_bench.layers(first)) & set(registry_bench.layers(second))
    assert len(in_common) == 3  # base, interpreter, shared
    uploads = [
        request for request in registry.requests if request.method == "PUT" and "/blobs/uploads/" in request.path
    ]
    assert len(uploads) == 4, uploads  # the new layer, the config, the catalogue, the list of the new layer's files


def test_a_layer_that_is_gone_from_the_repository_is_made_again(
    layout_bench: Any, wheel: MakeWheel, tmp_path: Path
) -> None:
    """The catalogue is a hint: what it promises is looked for before it is used."""
    package = wheel("one")
    image = layout_bench.build(package)
    for layer in layout_bench.layers(image)[1:]:
        (tmp_path / "layout" / "blobs" / "sha256" / layer.digest.removeprefix("sha256:")).unlink()
    assert layout_bench.build(package).digest == image.digest
    assert f"{SITE}/one/__init__.py" in files_of(layout_bench, image)


def test_images_at_once_share_the_work(bench: Any, index: PackageIndex, wheel: MakeWheel) -> None:
    """A package that three images want is downloaded once, though no catalogue can know it yet."""
    shared = wheel("shared", padding=LARGE_BYTES)
    builder = NativeBuilder(bench.settings)
    specs = [bench.spec(shared, wheel(f"own{n}")) for n in range(3)]
    with ThreadPoolExecutor(3) as threads:
        images = list(
            threads.map(lambda spec: builder.build(bench.request(spec, spec.full_id), bench.progress()), specs)
        )
    assert len({image.digest for image in images}) == 3
    assert sum(shared.filename in request for request in index.requests) == 1


def test_two_builders_of_one_image_meet_at_one_digest(bench: Any, wheel: MakeWheel) -> None:
    """Two processes that bake the same image into the same place do not disturb each other."""
    packages = [wheel(f"p{n}") for n in range(4)]
    with ThreadPoolExecutor(2) as threads:
        digests = set(threads.map(lambda _: bench.build(*packages).digest, range(4)))
    assert len(digests) == 1
    assert files_of(bench, bench.open().resolve("image"))


def test_of_two_owners_of_a_file_the_later_wins_and_both_are_named(bench: Any, wheel: MakeWheel) -> None:
    """A large package lies above the small ones."""
    small = wheel("small", files={"common/x.py": b"x = 'small'\n"})
    large = wheel("large", padding=LARGE_BYTES, files={"common/x.py": b"x = 'large'\n"})
    image = bench.build(small, large)
    assert files_of(bench, image)[f"{SITE}/common/x.py"] == b"x = 'large'\n"
    assert any(f"{small.filename} and {large.filename} both own" in line for line in bench.lines)


def test_owners_of_a_file_are_named_where_a_layer_is_reused(bench: Any, wheel: MakeWheel, tmp_path: Path) -> None:
    """Whoever adds a package to what others have pushed is told what it overwrites, and so is who adds nothing new."""
    small = wheel("small", files={"common/x.py": b"x = 'small'\n"})
    large = wheel("large", padding=LARGE_BYTES, files={"common/x.py": b"x = 'large'\n"})
    bench.build(small)
    for number in range(2):
        elsewhere = Settings({"METAFLOW_PREBUILT_CACHE_DIR": str(tmp_path / f"other{number}")}, {})
        other = replace(bench, settings=elsewhere, lines=[])
        other.build(small, large)
        assert [line for line in other.lines if f"{small.filename} and {large.filename} both own" in line]


def test_owners_of_a_file_are_named_by_images_that_share_a_layer(bench: Any, wheel: MakeWheel) -> None:
    """The layer of one of them is made once, for both images, and each is told."""
    first = wheel("first", padding=LARGE_BYTES, files={"common/x.py": b"x = 1\n"})
    second = wheel("second", padding=LARGE_BYTES, files={"common/x.py": b"x = 2\n"})
    builder = NativeBuilder(bench.settings)
    specs = [bench.spec(first, second, wheel(f"own{n}")) for n in range(2)]
    benches = [replace(bench, lines=[]) for _ in specs]
    with ThreadPoolExecutor(2) as threads:
        list(
            threads.map(
                lambda one: builder.build(bench.request(one[1], one[1].full_id), one[0].progress()),
                zip(benches, specs, strict=True),
            )
        )
    assert all(any("both own" in line for line in each.lines) for each in benches)


def test_a_file_with_another_hash_is_refused_and_nothing_is_tagged(bench: Any, wheel: MakeWheel) -> None:
    """The error names both hashes."""
    good, bad = wheel("good"), replace(wheel("bad", padding=LARGE_BYTES), sha256="0" * 64)
    with pytest.raises(DigestMismatchError, match="0" * 64):
        bench.build(good, bad)
    assert bench.open().resolve("image") is None


def test_what_was_made_before_a_failure_is_used_afterwards(bench: Any, index: PackageIndex, wheel: MakeWheel) -> None:
    """The layers that went well are in the catalogue; the next build fetches only the rest."""
    one_at_a_time = replace(
        bench, settings=Settings({**bench.settings.environ, "METAFLOW_PREBUILT_LAYER_WORKERS": "1"}, {})
    )
    good = wheel("good", padding=2 * LARGE_BYTES)
    bad = wheel("bad", padding=LARGE_BYTES)
    with pytest.raises(FetchError, match="absent"):
        one_at_a_time.build(good, replace(bad, url=bad.url.replace("bad-1.0-py3", "absent")))
    index.requests.clear()
    bench.build(good, bad)
    assert not [request for request in index.requests if "good" in request]


class ReadOnce:
    """Documents of a registry that goes away after the first question."""

    def __init__(self) -> None:
        """Have been asked nothing."""
        self.asked = 0

    def get(self, name: str) -> bytes | None:
        """Return nothing, once."""
        self.asked += 1
        if self.asked > 1:
            raise RegistryUnreachableError("get the manifest of", at=name, reason="gone")
        return None

    def put(self, name: str, data: bytes) -> None:
        """Fail."""
        del data
        raise RegistryUnreachableError("push", at=name, reason="gone")


def test_a_catalogue_that_cannot_be_reached_hides_no_failure(bench: Any, wheel: MakeWheel) -> None:
    """The layer that failed is what the user is told about."""
    one_at_a_time = replace(
        bench, settings=Settings({**bench.settings.environ, "METAFLOW_PREBUILT_LAYER_WORKERS": "1"}, {})
    )
    bad = replace(wheel("bad", padding=LARGE_BYTES), sha256="0" * 64)
    request = one_at_a_time.request(one_at_a_time.spec(wheel("good", padding=2 * LARGE_BYTES), bad))
    documents = ReadOnce()
    with pytest.raises(DigestMismatchError, match="0" * 64):
        NativeBuilder(one_at_a_time.settings).build(replace(request, documents=documents), bench.progress())
    assert documents.asked > 1


def test_a_refused_push_is_an_error_of_the_registry(
    registry_bench: Any, registry: InMemoryRegistry, wheel: MakeWheel
) -> None:
    """403 on uploads comes out as it is, and no tag is left."""
    registry.fail("POST", "/blobs/uploads/", status=403, times=100)
    with pytest.raises(ForbiddenError):
        registry_bench.build(wheel("one"))
    registry.fail("POST", "/nothing", status=403, times=1)
    assert registry_bench.open().resolve("image") is None


def test_cancelled_work_stops_and_leaves_no_files(bench: Any, wheel: MakeWheel, tmp_path: Path) -> None:
    """Nothing is tagged, and the scratch folder is empty."""
    cancellation = Cancellation()
    cancellation.cancel()
    request = replace(bench.request(bench.spec(wheel("one"))), cancellation=cancellation)
    with pytest.raises(CancelledError):
        NativeBuilder(bench.settings).build(request, bench.progress())
    scratch = tmp_path / "cache" / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())
    assert bench.open().resolve("image") is None


def test_a_large_layer_is_pushed_while_it_is_written(
    registry_bench: Any, registry: InMemoryRegistry, wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes in one PATCH, and the image is the one that it would be otherwise."""
    packages = [wheel("one"), wheel("large", padding=LARGE_BYTES)]
    whole = registry_bench.build(*packages)
    monkeypatch.setattr(layer_maker, "STREAMED_BYTES", LARGE_BYTES)
    registry.forget_requests()
    elsewhere = replace(registry_bench, repository=registry.repository("team/streamed"))
    assert elsewhere.build(*packages).digest == whole.digest
    assert registry.count("PATCH") == 1


def test_a_push_that_is_refused_ends_the_bake(
    registry_bench: Any, registry: InMemoryRegistry, wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A layer that nobody will take is not written to its end, and the refusal is the error."""
    monkeypatch.setattr(layer_maker, "STREAMED_BYTES", 0)
    request = registry_bench.request(registry_bench.spec(wheel("large", padding=LARGE_BYTES)))
    registry.fail("POST", "uploads", status=403, code="DENIED", times=50)
    with pytest.raises(ForbiddenError, match="403"):
        NativeBuilder(registry_bench.settings).build(request, registry_bench.progress())
    scratch = tmp_path / "cache" / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())


@pytest.mark.parametrize("streamed_bytes", [0, 1 << 40], ids=["while it is written", "once it is whole"])
def test_an_upload_under_way_is_stopped(
    registry_bench: Any,
    registry: InMemoryRegistry,
    wheel: MakeWheel,
    monkeypatch: pytest.MonkeyPatch,
    streamed_bytes: int,
) -> None:
    """A large layer on a slow line does not hold Ctrl-C up until it has arrived."""
    monkeypatch.setattr(layer_maker, "STREAMED_BYTES", streamed_bytes)
    with relay(registry.host) as line:
        line.up_bytes_per_s = 500_000
        slow = replace(registry_bench, repository=f"{line.address}/team/env")
        cancellation = Cancellation()
        request = replace(slow.request(slow.spec(wheel("one", padding=12_000_000))), cancellation=cancellation)
        with ThreadPoolExecutor(1) as threads:
            building = threads.submit(NativeBuilder(slow.settings).build, request, slow.progress())
            eventually(lambda: line.sent_bytes >= 200_000 or building.done())
            cancellation.cancel()
            with pytest.raises(CancelledError):
                building.result(timeout=60)
        assert line.sent_bytes < 8_000_000


def test_what_killed_processes_left_long_ago_is_removed(bench: Any, wheel: MakeWheel, tmp_path: Path) -> None:
    """Half-made layers and unpacked packages of a day ago go; those of processes that may still run stay."""
    scratch = tmp_path / "cache" / "scratch"
    (scratch / "old-package" / "files").mkdir(parents=True)
    (scratch / "layer-old").write_bytes(b"x")
    (scratch / "layer-new").write_bytes(b"x")
    for path in (scratch / "old-package", scratch / "layer-old"):
        os.utime(path, (0, 0))
    bench.build(wheel("one"))
    assert [path.name for path in scratch.iterdir()] == ["layer-new"]


def test_an_unwritable_cache_is_named(bench: Any, wheel: MakeWheel, tmp_path: Path) -> None:
    """The error says which folder, and which setting moves it."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StorageError, match="cache"):
        bench.build(wheel("one"))


def test_a_base_image_that_vanished_is_named(bench: Any, wheel: MakeWheel) -> None:
    """Its digest was known, its manifest is gone."""
    gone = replace(bench, base=replace(bench.base, digest="sha256:" + "0" * 64))
    with pytest.raises(BaseImageError, match="gone now"):
        gone.build(wheel("one"))


def test_a_python_that_this_machine_lacks_is_got_for_compiling(
    bench: Any, wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image has its bytecode all the same."""
    spec = bench.spec(wheel("one"))
    pythons = SimpleNamespace(get=lambda *_: find_interpreter(spec.lock.python_xy))
    monkeypatch.setattr(workshop, "find_interpreter", lambda _: None)
    request = replace(bench.request(spec), interpreters=pythons)
    image = NativeBuilder(bench.settings).build(request, bench.progress())
    assert [path for path in files_of(bench, image) if path.endswith(".pyc")]


def test_bytecode_can_be_left_out(bench: Any, wheel: MakeWheel) -> None:
    """A spec without bytecode needs no interpreter of the target's version."""
    assert not [path for path in files_of(bench, bench.build(wheel("one"), bytecode=False)) if path.endswith(".pyc")]


def test_dockerfiles_are_refused_with_a_remedy(settings: Settings) -> None:
    """The published method says which setting to change."""
    with pytest.raises(BuildError, match="METAFLOW_PREBUILT_BUILD_SERVICE"):
        NativeBuilder(settings).build_and_push("FROM x", {}, "x:y", {}, print)


def test_the_layout_is_where_the_setting_says(tmp_path: Path, settings: Settings) -> None:
    """By default it is in the cache folder; it is a place that no cluster reaches."""
    assert layout_folder(settings) == tmp_path / "cache" / "layout"
    named = LayoutRegistry(Settings({"METAFLOW_PREBUILT_LAYOUT": str(tmp_path / "images")}, {}))
    assert named.repository == f"oci:{tmp_path / 'images'}"
    assert not named.is_reachable_from_cluster()


def test_workers_follow_the_processors_and_the_setting(settings: Settings) -> None:
    """Memory bounds them, however many processors there are; the setting decides about layers."""
    config = NativeConfig.from_settings(settings)
    assert 1 <= config.layer_workers <= 4
    assert config.layer_workers <= config.compile_workers <= 8
    fixed = Settings({"METAFLOW_PREBUILT_LAYER_WORKERS": "2"}, {})
    assert NativeConfig.from_settings(fixed).layer_workers == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_disk_that_fills_up_is_named(layout_bench: Any, wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last bytes of a layer were still in memory, and closing its file fails once more."""
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115 - as the real one
    with pytest.raises(StorageError, match=r"write layer .*No space left on device; free some space"):
        layout_bench.build(wheel("one"))
