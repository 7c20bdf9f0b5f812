"""A blob that is read while it is written."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import CancelledError
from prebuilt.oci.growing_blob import GrowingBlob

DESCRIPTOR = Descriptor(media_type="application/octet-stream", digest="sha256:" + "1" * 64, size=6)


def test_readers_get_what_comes_as_it_comes(tmp_path: Path) -> None:
    """Each reader begins at the start, waits for more, and ends where the blob does."""
    with ThreadPoolExecutor() as threads, GrowingBlob(tmp_path / "scratch") as blob:
        early = threads.submit(lambda: b"".join(blob.pieces()))
        whole = threads.submit(blob.wait_for_all)
        first = blob.pieces()
        blob.write(b"one")
        blob.wait_for_some()
        assert next(first) == b"one"
        blob.write(b"two")
        assert next(first) == b"two"
        assert not early.done()
        blob.finish(DESCRIPTOR)
        assert early.result() == b"onetwo"
        assert whole.result() == DESCRIPTOR
        assert list(first) == []
        assert b"".join(blob.pieces()) == b"onetwo"
        with blob.open() as file:
            assert file.read() == b"onetwo"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_pieces_are_small(tmp_path: Path) -> None:
    """However much was written at once, at most 1 MiB of it is in memory at a time."""
    with GrowingBlob(tmp_path) as blob:
        blob.write(b"x" * ((2 << 20) + 1))
        blob.finish(DESCRIPTOR)
        assert [len(piece) for piece in blob.pieces()] == [1 << 20, 1 << 20, 1]


def test_nobody_waits_for_what_will_not_come(tmp_path: Path) -> None:
    """Readers of a blob that is given up are told so, also in the middle."""
    begun = threading.Event()

    def read() -> None:
        for _ in blob.pieces():
            begun.set()

    with ThreadPoolExecutor() as threads:
        with GrowingBlob(tmp_path) as blob:
            waiting = [threads.submit(wait) for wait in (blob.wait_for_some, blob.wait_for_all)]
            blob.write(b"one")
            waiting.append(threads.submit(read))
            assert waiting[0].result() is None
            assert begun.wait(10)
        for each in waiting[1:]:
            with pytest.raises(CancelledError, match="not finished"):
                each.result()
    with GrowingBlob(tmp_path) as nothing:
        pass
    with pytest.raises(CancelledError):
        nothing.wait_for_some()
