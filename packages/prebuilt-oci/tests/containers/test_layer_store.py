"""The layer store: each layer once, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import ContainerError, DigestMismatchError, StorageError
from prebuilt.oci.containers.image import ImageLayer
from prebuilt.oci.containers.image_source import ImageSource
from prebuilt.oci.containers.layer_store import LayerStore
from prebuilt.oci.containers.lock_file import locked
from prebuilt.oci.layout import LayoutRepository
from prebuilt.testing.tar_image import TarLayer, push_tar_image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="overlay mounts are Linux's")


class CountingLayout(LayoutRepository):
    """A layout that counts how often a blob is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: list[str] = []

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Read, and count."""
        self.reads.append(descriptor.digest)
        return super().open_blob(descriptor)


@pytest.fixture
def layout(tmp_path: Path) -> CountingLayout:
    """An empty layout."""
    return CountingLayout(tmp_path / "layout")


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    """An empty store."""
    return LayerStore(tmp_path / "layers")


def layers_of(layout: CountingLayout, tmp_path: Path, *layers: TarLayer, **how: str) -> tuple[ImageLayer, ...]:
    """Push an image; return its layers."""
    image = push_tar_image(layout, layers, **how)  # type: ignore[arg-type]
    found = ImageSource(tmp_path / "images", lambda _: layout).get(image).layers
    layout.reads.clear()
    return found


def folders(store: LayerStore) -> list[Path]:
    """What is in the store, lock files apart."""
    return sorted(path for path in store.folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_layers_are_unpacked_once(layout: CountingLayout, store: LayerStore, tmp_path: Path, compression: str) -> None:
    """The folders come in the order of the layers; a second time nothing is opened."""
    layers = layers_of(layout, tmp_path, TarLayer().add("a"), TarLayer().add("b"), compression=compression)
    places = store.ensure(layers, lambda: layout)
    assert [[path.name for path in place.iterdir()] for place in places] == [["a"], ["b"]]
    assert store.ensure(layers, lambda: pytest.fail("opened")) == places
    assert len(layout.reads) == 2


def test_the_same_layer_twice_in_an_image(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """Images may repeat a layer, mostly the empty one."""
    layers = layers_of(layout, tmp_path, TarLayer().add("a"), TarLayer().add("b"), TarLayer().add("a"))
    first, _, third = store.ensure(layers, lambda: layout)
    assert first == third
    assert len(layout.reads) == 2


def test_many_at_once_unpack_once(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """Who comes second waits for the first."""
    layers = layers_of(layout, tmp_path, *(TarLayer().add(f"f{i}", data=b"x" * 100_000) for i in range(5)))
    barrier = threading.Barrier(8)

    def ensure(_: int) -> list[Path]:
        barrier.wait()
        return LayerStore(store.folder).ensure(layers, lambda: layout)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ensure, range(8)))
    assert all(result == results[0] for result in results)
    assert len(layout.reads) == 5


def test_what_a_killed_process_left_is_written_anew(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """A partial folder counts for nothing."""
    layers = layers_of(layout, tmp_path, TarLayer().add("a"))
    partial = store.place(layers[0].diff_id).with_suffix(".partial")
    (partial / "stale").mkdir(parents=True)
    (place,) = store.ensure(layers, lambda: layout)
    assert [path.name for path in place.iterdir()] == ["a"]
    assert folders(store) == [place]


def test_ctrl_c_stops_unpacking(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """It does not wait for the end of a layer, leaves nothing of it, and the next run unpacks it."""
    data = random.Random(1).randbytes(8 << 20)  # noqa: S311 - it must not compress
    layers = layers_of(
        layout, tmp_path, TarLayer().add("a", data=data), TarLayer().add("b", data=data[::-1]), compression="none"
    )

    pressed, read_whole = threading.Lock(), list[str]()

    class SlowLayout(CountingLayout):
        """Gives its first piece to both layers, and has the user press Ctrl-C; the rest of a layer takes eight seconds."""

        @contextlib.contextmanager
        def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
            with super().open_blob(descriptor) as chunks:
                yield self._slowly(chunks)

        def _slowly(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
            for number, chunk in enumerate(chunks):
                if number == 1 and len(self.reads) == 2 and pressed.acquire(blocking=False):
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
                yield chunk
            read_whole.append("a layer")

    with pytest.raises(KeyboardInterrupt):
        store.ensure(layers, lambda: SlowLayout(tmp_path / "layout"))
    assert read_whole == []
    assert folders(store) == []
    assert len(store.ensure(layers, lambda: layout)) == 2


def test_a_layer_that_is_not_its_diff_id_is_refused(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """Nothing of it stays."""
    (layer,) = layers_of(layout, tmp_path, TarLayer().add("a"))
    lie = ImageLayer(descriptor=layer.descriptor, diff_id="sha256:" + "1" * 64)
    with pytest.raises(DigestMismatchError, match="expected sha256:1111"):
        store.ensure([lie], lambda: layout)
    assert folders(store) == []


def test_a_layer_that_escapes_is_refused(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """Nothing of it stays, and the next attempt is refused as well."""
    layers = layers_of(layout, tmp_path, TarLayer().add("fine").add("../../escaped"))
    for _ in range(2):
        with pytest.raises(ContainerError, match="escaped"):
            store.ensure(layers, lambda: layout)
    assert folders(store) == []
    assert not list(tmp_path.glob("escaped"))


def test_a_truncated_tar_is_refused(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """The error names the layer."""

    class Cut(TarLayer):
        @property
        def data(self) -> bytes:
            return super().data[:1000]

    layers = layers_of(layout, tmp_path, Cut().add("a", data=b"x" * 5000))
    with pytest.raises(ContainerError, match=r"unpack the layer sha256:.*damaged"):
        store.ensure(layers, lambda: layout)
    assert folders(store) == []


def test_a_cache_that_cannot_be_written(layout: CountingLayout, tmp_path: Path) -> None:
    """The error says that the disk is the matter."""
    layers = layers_of(layout, tmp_path, TarLayer().add("a"))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        LayerStore(tmp_path / "file" / "layers").ensure(layers, lambda: layout)


def age(place: Path, days: int) -> None:
    """Let the last run that wanted a layer be `days` ago."""
    then = time.time() - days * 24 * 3600
    os.utime(place.with_suffix(".lock"), (then, then))


def test_layers_that_nobody_wants_any_more_go(layout: CountingLayout, store: LayerStore, tmp_path: Path) -> None:
    """What no run wanted for a month is removed when something new is unpacked; not what is wanted, recent or in use."""
    four = layers_of(
        layout, tmp_path, *(TarLayer().add(name, mode=0o700) for name in ("old", "wanted", "recent", "used"))
    )
    old, wanted, recent, used = store.ensure(four, lambda: layout)
    for place, days in ((old, 31), (wanted, 31), (recent, 29), (used, 31)):
        age(place, days)
    store.ensure(four[1:2], lambda: pytest.fail("opened"))
    with locked(used.with_suffix(".lock")):
        age(used, 31)
        [new] = store.ensure(layers_of(layout, tmp_path, TarLayer().add("new")), lambda: layout)
    assert folders(store) == sorted([wanted, recent, used, new])
    assert store.ensure(four[:1], lambda: layout) == [old]
    assert [path.name for path in old.iterdir()] == ["old"]


def test_layers_of_another_user_are_used(
    layout: CountingLayout, store: LayerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their lock files cannot be touched where a cache is shared: no reason to unpack anew, nor to fail."""
    layers = layers_of(layout, tmp_path, TarLayer().add("a"))
    places = store.ensure(layers, lambda: layout)

    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    assert store.ensure(layers, lambda: pytest.fail("opened")) == places
