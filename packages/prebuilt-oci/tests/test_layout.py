"""An image layout is a repository that threads and processes share and that survives being killed or damaged."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import DigestMismatchError, InvalidValueError, RegistryError, StorageError
from prebuilt.oci import media_types
from prebuilt.oci.image import ImageManifest, descriptor_of
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.open import open_repository
from prebuilt.testing.blobs import push_bytes
from prebuilt.testing.waiting import eventually

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def layout(tmp_path: Path) -> LayoutRepository:
    """Return a layout that does not exist yet."""
    return LayoutRepository(tmp_path / "layout")


def opener(data: bytes) -> Callable[[], BinaryIO]:
    """Return what opens `data`."""
    return lambda: io.BytesIO(data)


def push_image(layout: LayoutRepository, tag: str, *layers: bytes) -> Descriptor:
    """Store an image under a tag."""
    manifest = ImageManifest(
        config=push_bytes(layout, b'{"os":"linux"}', media_types.OCI_CONFIG),
        layers=tuple(push_bytes(layout, layer, media_types.OCI_LAYER_GZIP) for layer in layers),
    )
    return layout.put_manifest(tag, media_types.OCI_MANIFEST, manifest.to_bytes())


def blob_path(layout: LayoutRepository, digest: str) -> Path:
    """Return the file of a blob."""
    return Path(layout.name.removeprefix("oci:")) / "blobs" / digest.replace(":", "/")


def read(layout: LayoutRepository, descriptor: Descriptor) -> bytes:
    """Return a blob."""
    with layout.open_blob(descriptor) as chunks:
        return b"".join(chunks)


def test_nothing_is_there_at_first(layout: LayoutRepository, tmp_path: Path) -> None:
    """A layout that does not exist has nothing, and asking does not make it."""
    assert layout.resolve("v1") is None
    assert layout.get_manifest("v1") is None
    assert not layout.has_blob("sha256:" + "0" * 64)
    assert layout.resolve("sha256:" + "0" * 64) is None
    assert list(tmp_path.iterdir()) == []


def test_open_repository(layout: LayoutRepository) -> None:
    """Its name opens it."""
    push_image(layout, "v1")
    assert open_repository(layout.name).resolve("v1") == layout.resolve("v1")


def test_an_image_comes_back(layout: LayoutRepository) -> None:
    """An image is found by its tag and by its digest, and its blobs are read."""
    pushed = push_image(layout, "v1", b"layer")
    for reference in ("v1", pushed.digest):
        assert layout.resolve(reference) == pushed
        manifest = layout.get_manifest(reference)
        assert manifest is not None
        assert manifest.descriptor == pushed
        image = ImageManifest.parse(manifest.data)
        assert read(layout, image.layers[0]) == b"layer"
    assert layout.resolve("v2") is None


def test_files_of_a_layout(layout: LayoutRepository, tmp_path: Path) -> None:
    """The folder is as the specification has it, readable by all, and the index has the same bytes in whatever order tags came."""
    one = push_image(layout, "a", b"1")
    push_image(layout, "b", b"2")
    folder = tmp_path / "layout"
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_text())
    assert index["schemaVersion"] == 2
    assert index["manifests"][0] == {
        "annotations": {"org.opencontainers.image.ref.name": "a"},
        "digest": one.digest,
        "mediaType": media_types.OCI_MANIFEST,
        "size": one.size,
    }
    assert (folder / "index.json").stat().st_mode & 0o777 == 0o644
    other = LayoutRepository(tmp_path / "other")
    push_image(other, "b", b"2")
    push_image(other, "a", b"1")
    assert (tmp_path / "other" / "index.json").read_bytes() == (folder / "index.json").read_bytes()


def test_a_tag_moves(layout: LayoutRepository) -> None:
    """A tag names what it was last given; what it named before is still found by digest."""
    first, second = push_image(layout, "v1", b"1"), push_image(layout, "v1", b"2")
    assert layout.resolve("v1") == second
    assert layout.resolve(first.digest) == first
    assert layout.tags() == {"v1": second}


def test_manifests_by_digest(layout: LayoutRepository) -> None:
    """A manifest that was put by digest is listed without a tag, until it gets one; a wrong digest is refused."""
    pushed = push_image(layout, "v1")
    manifest = layout.get_manifest("v1")
    assert manifest is not None
    other = LayoutRepository(Path(layout.name.removeprefix("oci:")).with_name("other"))
    push_bytes(other, b'{"os":"linux"}', media_types.OCI_CONFIG)
    for _ in range(2):
        assert other.put_manifest(pushed.digest, media_types.OCI_MANIFEST, manifest.data) == pushed
    assert other.resolve(pushed.digest) == pushed
    assert other.resolve("latest") == pushed
    assert other.tags() == {}
    other.put_manifest("v1", media_types.OCI_MANIFEST, manifest.data)
    assert other.tags() == {"v1": pushed}
    assert other.resolve("latest") is None
    with pytest.raises(DigestMismatchError):
        other.put_manifest("sha256:" + "0" * 64, media_types.OCI_MANIFEST, manifest.data)


def test_blobs_are_not_manifests(layout: LayoutRepository) -> None:
    """A config or a layer is not found as a manifest."""
    assert layout.get_manifest(push_bytes(layout, b'{"os":"linux"}').digest) is None
    assert layout.get_manifest(push_bytes(layout, b"\x1f\x8b").digest) is None


def test_an_index_may_be_sparse(layout: LayoutRepository) -> None:
    """An index can be stored whose other platforms are not here."""
    image = push_image(layout, "v1")
    gone = descriptor_of(b"elsewhere", media_types.OCI_MANIFEST)
    data = json.dumps({"schemaVersion": 2, "manifests": [image.to_json(), gone.to_json()]}).encode()
    assert layout.resolve("all") is None
    put = layout.put_manifest("all", media_types.OCI_INDEX, data)
    assert layout.resolve("all") == put


def test_a_manifest_needs_its_blobs(layout: LayoutRepository) -> None:
    """A manifest whose blobs are not there is refused, as registries do."""
    manifest = ImageManifest(config=descriptor_of(b"{}", media_types.OCI_CONFIG), layers=())
    with pytest.raises(RegistryError, match="is not there") as caught:
        layout.put_manifest("v1", media_types.OCI_MANIFEST, manifest.to_bytes())
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"
    assert layout.resolve("v1") is None


@pytest.mark.parametrize("tag", ["", "-x", "a/b", "x" * 129])
def test_bad_tags(layout: LayoutRepository, tag: str) -> None:
    """A tag that no registry accepts is refused here, too."""
    with pytest.raises(InvalidValueError):
        layout.put_manifest(tag, media_types.OCI_MANIFEST, b"{}")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (2 << 20) + 5])
def test_chunks(layout: LayoutRepository, size: int) -> None:
    """A blob of any size comes in chunks of at most 1 MiB."""
    data = os.urandom(size)
    descriptor = push_bytes(layout, data)
    with layout.open_blob(descriptor) as chunks:
        pieces = list(chunks)
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= 1 << 20 for piece in pieces)


def test_progress(layout: LayoutRepository) -> None:
    """Bytes are reported as they are stored; a blob that is there is not stored again."""
    moved: list[int] = []
    data = bytes(3_000_000)
    for _ in range(2):
        layout.push_blob(descriptor_of(data, "x/y"), opener(data), moved.append)
    assert sum(moved) == len(data)


def test_wrong_bytes_are_not_stored(layout: LayoutRepository) -> None:
    """What is not what its descriptor says leaves nothing behind."""
    promised = descriptor_of(b"right", "x/y")
    for data in (b"wrong", b"righ", b"right and more"):
        with pytest.raises(DigestMismatchError, match=promised.digest):
            layout.push_blob(promised, opener(data))
    assert not layout.has_blob(promised.digest)
    assert list(blob_path(layout, promised.digest).parent.iterdir()) == []


def test_reading_what_is_not_there(layout: LayoutRepository) -> None:
    """A blob that is not there is an error."""
    with pytest.raises(RegistryError, match="does not have it"), layout.open_blob(descriptor_of(b"x", "x/y")):
        pass


@pytest.mark.parametrize("damage", [b"", b"lay", b"LAYER", b"layer and more"])
def test_damaged_blobs(layout: LayoutRepository, damage: bytes) -> None:
    """A damaged blob is noticed when it is read, and a push mends it."""
    push_image(layout, "v1", b"layer")
    blob = descriptor_of(b"layer", media_types.OCI_LAYER_GZIP)
    blob_path(layout, blob.digest).write_bytes(damage)
    with pytest.raises(DigestMismatchError, match="delete this file"):
        read(layout, blob)
    layout.push_blob(blob, opener(b"layer"))
    assert read(layout, blob) == b"layer"


def test_the_last_chunk_waits_for_the_digest(layout: LayoutRepository) -> None:
    """Of a damaged blob the last chunk never comes, so no reader takes it for whole."""
    data = bytes(3 << 20)
    blob = push_bytes(layout, data)
    blob_path(layout, blob.digest).write_bytes(b"\1" + data[1:])
    got = []
    with pytest.raises(DigestMismatchError), layout.open_blob(blob) as chunks:
        got.extend(chunk for chunk in chunks)
    assert sum(map(len, got)) < len(data)


@pytest.mark.parametrize("damage", [None, b"lay"])
def test_an_image_with_a_lost_blob_counts_as_absent(layout: LayoutRepository, damage: bytes | None) -> None:
    """An image that lost a blob, or the end of one, is not there, so that it is pushed again; that mends it."""
    pushed = push_image(layout, "v1", b"layer")
    path = blob_path(layout, descriptor_of(b"layer", "").digest)
    path.unlink() if damage is None else path.write_bytes(damage)
    assert layout.resolve("v1") is None
    assert push_image(layout, "v1", b"layer") == pushed
    assert layout.resolve("v1") == pushed


def test_a_truncated_blob_is_removed_when_a_manifest_needs_it(layout: LayoutRepository) -> None:
    """Who only asked whether the blob is there gets an error for the manifest, and the next time is told the truth."""
    config, layer = push_bytes(layout, b"{}"), push_bytes(layout, b"layer")
    blob_path(layout, layer.digest).write_bytes(b"lay")
    manifest = ImageManifest(config=config, layers=(layer,))
    assert layout.has_blob(layer.digest)
    with pytest.raises(RegistryError, match="was damaged"):
        layout.put_manifest("v1", media_types.OCI_MANIFEST, manifest.to_bytes())
    assert not layout.has_blob(layer.digest)


def test_a_damaged_manifest(layout: LayoutRepository) -> None:
    """A damaged manifest is noticed when it is read, counts as absent, and is mended by the next push."""
    pushed = push_image(layout, "v1", b"layer")
    path = blob_path(layout, pushed.digest)
    path.write_bytes(path.read_bytes().replace(b"gzip", b"zstd"))
    with pytest.raises(DigestMismatchError):
        layout.get_manifest("v1")
    assert layout.resolve("v1") is None
    assert push_image(layout, "v1", b"layer") == layout.resolve("v1")
    path.unlink()
    assert layout.get_manifest("v1") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.json", b"not JSON"),
        ("index.json", b'{"manifests": 1}'),
        ("index.json", b'{"manifests": [{}]}'),
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}'),
    ],
)
def test_a_damaged_layout(layout: LayoutRepository, tmp_path: Path, name: str, content: bytes) -> None:
    """A layout that cannot be read is an error that says what to do, for readers and writers; nothing is overwritten."""
    push_image(layout, "v1")
    (tmp_path / "layout" / name).write_bytes(content)
    with pytest.raises(StorageError, match="move the folder away"):
        layout.resolve("v1")
    with pytest.raises(StorageError, match="move the folder away"):
        push_image(layout, "v2")
    assert (tmp_path / "layout" / name).read_bytes() == content


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    """A folder that is no layout and not empty is never turned into one."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"thesis\.tex .* empty"):
        push_bytes(LayoutRepository(tmp_path), b"x")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    """A file where the folder should be is an error of ours."""
    (tmp_path / "layout").write_text("x")
    layout = LayoutRepository(tmp_path / "layout")
    with pytest.raises(StorageError):
        push_bytes(layout, b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: run the tests as an ordinary user")
def test_a_folder_that_is_not_writable(layout: LayoutRepository, tmp_path: Path) -> None:
    """A folder that may not be written gives an error that says so; reading works."""
    pushed = push_image(layout, "v1")
    for folder, _, _ in os.walk(tmp_path / "layout"):
        Path(folder).chmod(0o555)
    try:
        assert LayoutRepository(tmp_path / "layout").resolve("v1") == pushed
        with pytest.raises(StorageError, match="make it writable"):
            push_bytes(LayoutRepository(tmp_path / "layout"), b"x")
    finally:
        for folder, _, _ in os.walk(tmp_path / "layout"):
            Path(folder).chmod(0o755)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk(layout: LayoutRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk gives an error that says what to do, and leaves nothing half-made."""
    blob = push_bytes(layout, b"first")
    real = os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fdopen", lambda handle, mode: (os.close(handle), real(os.open("/dev/full", os.O_WRONLY), mode))[1]
        )
        with pytest.raises(StorageError, match="free some space"):
            push_bytes(layout, os.urandom(100_000))
    assert [path.name for path in blob_path(layout, blob.digest).parent.iterdir()] == [
        blob.digest.removeprefix("sha256:")
    ]


def test_mount_by_hard_link(layout: LayoutRepository, tmp_path: Path) -> None:
    """A blob of another layout is linked, not copied; mounting it again changes nothing."""
    other = LayoutRepository(tmp_path / "other")
    blob = push_bytes(other, b"layer")
    for _ in range(2):
        assert layout.mount_blob(blob, other.name)
    assert blob_path(layout, blob.digest).samefile(blob_path(other, blob.digest))
    assert read(layout, blob) == b"layer"
    assert not [path for path in blob_path(layout, blob.digest).parent.iterdir() if path.name.startswith(".")]


def test_mount_mends(layout: LayoutRepository, tmp_path: Path) -> None:
    """A truncated blob is replaced by the mounted one."""
    other = LayoutRepository(tmp_path / "other")
    blob = push_bytes(other, b"layer")
    push_bytes(layout, b"layer")
    blob_path(layout, blob.digest).write_bytes(b"lay")
    assert layout.mount_blob(blob, other.name)
    assert read(layout, blob) == b"layer"


def test_mount_by_copy(layout: LayoutRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no hard link can be made, the blob is copied, and checked."""

    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    other = LayoutRepository(tmp_path / "other")
    blob = push_bytes(other, b"layer")
    monkeypatch.setattr(os, "link", no_link)
    assert layout.mount_blob(blob, other.name)
    assert not blob_path(layout, blob.digest).samefile(blob_path(other, blob.digest))
    damaged = push_bytes(other, b"other")
    blob_path(other, damaged.digest).write_bytes(b"OTHER")
    with pytest.raises(DigestMismatchError):
        layout.mount_blob(damaged, other.name)
    assert not layout.has_blob(damaged.digest)


def test_mount_of_what_is_not_there(layout: LayoutRepository, tmp_path: Path) -> None:
    """What the other repository does not have, or what is in a registry, is not mounted."""
    blob = descriptor_of(b"layer", media_types.OCI_LAYER_GZIP)
    assert not layout.mount_blob(blob, f"oci:{tmp_path}/nowhere")
    assert not layout.mount_blob(blob, "docker.io/library/python")
    push_bytes(layout, b"layer")
    assert layout.mount_blob(blob, "docker.io/library/python")


def test_threads_share_a_layout(layout: LayoutRepository) -> None:
    """Tags that many threads put at once are all there."""
    push_image(layout, "warm", b"x")
    threads = [threading.Thread(target=push_image, args=(layout, f"t{number}", b"%d" % number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(layout.tags()) == 9


def _tag_images(folder: Path, number: int) -> None:
    layout = LayoutRepository(folder)
    for turn in range(4):
        push_image(layout, f"p{number}-{turn}", b"shared", b"%d-%d" % (number, turn))
        push_image(layout, "contended", b"shared", b"%d-%d" % (number, turn))


def test_processes_share_a_layout(tmp_path: Path) -> None:
    """Tags that 8 processes put at once, into a layout that did not exist, are all there and whole."""
    processes = [SPAWN.Process(target=_tag_images, args=(tmp_path / "layout", number)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    layout = LayoutRepository(tmp_path / "layout")
    assert len(layout.tags()) == 33
    assert all(layout.resolve(tag) for tag in layout.tags())


def _push_for_ever(folder: Path) -> None:
    layout = LayoutRepository(folder)
    turn = 0
    while True:
        turn += 1
        push_image(layout, f"t{turn}", hashlib.sha256(b"%d" % turn).digest() * 100_000)


def test_killed_while_writing(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves a layout whose tags are all whole, and no lock."""
    layout = LayoutRepository(tmp_path / "layout")
    for delay_s in (0.0, 0.003, 0.007):
        count = len(layout.tags())

        def is_under_way(count: int = count) -> bool:
            return len(layout.tags()) >= count + 2 or (count > 0 and any(tmp_path.glob("layout/blobs/sha256/.*")))

        process = SPAWN.Process(target=_push_for_ever, args=(tmp_path / "layout",), daemon=True)
        process.start()
        eventually(is_under_way, every_s=0.001)  # often: a file is half-made for a moment only
        time.sleep(delay_s)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        tags = layout.tags()
        assert tags
        assert all(layout.resolve(tag) == descriptor for tag, descriptor in tags.items())
        for descriptor in tags.values():
            manifest = layout.get_manifest(descriptor.digest)
            assert manifest is not None
            assert all(read(layout, blob) for blob in ImageManifest.parse(manifest.data).layers)
        push_image(layout, f"after-{delay_s}", b"fine")


def test_power_may_fail(layout: LayoutRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is on the disk before it gets its name, and its name before the next file gets one: the index is the last."""
    synced: set[int] = set()
    named: list[Path] = []
    fsync, rename = os.fsync, os.replace

    def note_sync(handle: int) -> None:
        fsync(handle)
        synced.add(os.fstat(handle).st_ino)

    def note_name(temporary: str, path: Path) -> None:
        assert Path(temporary).stat().st_ino in synced
        assert not named or named[-1].parent.stat().st_ino in synced
        synced.clear()
        rename(temporary, path)
        named.append(path)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    push_image(layout, "1", b"a layer")
    names = [path.name for path in named]
    assert names[:2] == ["oci-layout", "index.json"]
    assert len(names[2:-1]) == 3  # layer, config and manifest
    assert names[-1] == "index.json"
    assert (tmp_path / "layout").stat().st_ino in synced


def test_leftovers_are_removed(layout: LayoutRepository, tmp_path: Path) -> None:
    """What a killed process left half-written is removed after a day, what another one is writing now is not."""
    push_bytes(layout, b"x")
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    for name, age_s in ((".old", 100_000), (".new", 60)):
        (blobs / name).write_bytes(b"half")
        os.utime(blobs / name, (time.time() - age_s,) * 2)
    push_bytes(LayoutRepository(tmp_path / "layout"), b"y")
    assert sorted(path.name for path in blobs.iterdir() if path.name.startswith(".")) == [".new"]
