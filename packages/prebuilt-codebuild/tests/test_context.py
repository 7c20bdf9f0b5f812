"""The archive of a context, and its way to S3."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from prebuilt.codebuild.context_zip import look_at
from prebuilt.codebuild.upload import ContextStore
from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import CancelledError, InvalidValueError, StorageError
from prebuilt.core.tree import BytesContent, Content, PathContent

FILES: dict[str, Content] = {
    "Dockerfile": BytesContent(b"FROM scratch\n"),
    "packages/einfach/größe.whl": BytesContent(bytes(range(256)) * 5000),
    "empty": BytesContent(b""),
}


def archive(files: dict[str, Content]) -> bytes:
    """Return the whole archive."""
    return b"".join(look_at(files, lambda: None).chunks())


def test_any_unzip_reads_it(tmp_path: Path) -> None:
    """Names, bytes, modes and checksums are right, for the standard library and for Info-ZIP."""
    data = archive(FILES)
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert read.testzip() is None
        assert read.namelist() == sorted(FILES)
        assert {name: read.read(name) for name in FILES} == {name: each.open().read() for name, each in FILES.items()}
        assert {info.external_attr >> 16 for info in read.infolist()} == {0o100644}
        assert {info.flag_bits & 8 for info in read.infolist()} == {
            0
        }  # no sizes after the bytes, which some cannot read
    if shutil.which("unzip"):
        (tmp_path / "context.zip").write_bytes(data)
        subprocess.run(["unzip", "-tq", str(tmp_path / "context.zip")], check=True, capture_output=True)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither order, nor time, nor place shows; a changed byte or name does."""
    moved = {}
    for name, content in reversed(FILES.items()):
        path = tmp_path / name.replace("/", "-")
        path.write_bytes(content.open().read())
        moved[name] = PathContent(path)
    assert archive(moved) == archive(FILES)
    first = look_at(FILES, lambda: None).content_id
    assert look_at(moved, lambda: None).content_id == first
    assert look_at({**FILES, "empty": BytesContent(b"x")}, lambda: None).content_id != first
    assert look_at({**FILES, "empty2": BytesContent(b"")}, lambda: None).content_id != first


def test_its_size_is_known_before() -> None:
    """The bytes that will be uploaded are announced exactly."""
    assert look_at(FILES, lambda: None).size_bytes == len(archive(FILES))


@pytest.mark.parametrize("limit", [1000, 600])
def test_what_32_bits_do_not_hold(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Files and archives above 4 GiB are ZIP64; here the limit is nearer."""
    monkeypatch.setattr("prebuilt.codebuild.context_zip._LIMIT", limit)
    files: dict[str, Content] = {f"file-{number}": BytesContent(bytes([number]) * 500 * number) for number in range(9)}
    with zipfile.ZipFile(io.BytesIO(archive(files))) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in files} == {name: each.open().read() for name, each in files.items()}


def test_more_files_than_16_bits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is ZIP64's, too."""
    files: dict[str, Content] = {f"{number:05}": BytesContent(b"") for number in range(0x10001)}
    with zipfile.ZipFile(io.BytesIO(archive(files))) as read:
        assert len(read.namelist()) == len(files)


@dataclass(frozen=True)
class Changing:
    """A file that is another one when it is opened again."""

    contents: Iterator[bytes]
    size: int = 3

    def open(self) -> BinaryIO:
        """Give the next content."""
        return io.BytesIO(next(self.contents))

    def prefetch(self) -> None:
        """Nothing to start."""


@pytest.mark.parametrize("later", [b"two", b"o"])
def test_a_file_that_changes_is_refused(later: bytes) -> None:
    """What was looked at is what is sent, or nothing is."""
    looked_at = look_at({"file": Changing(iter([b"one", later]))}, lambda: None)
    with pytest.raises(StorageError, match=r"file.*changed while it was read"):
        b"".join(looked_at.chunks())


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a//b"])
def test_names_stay_inside(name: str) -> None:
    """A name that leaves the context is refused."""
    with pytest.raises(InvalidValueError):
        look_at({name: BytesContent(b"")}, lambda: None)


def test_looking_can_be_stopped() -> None:
    """Between chunks the cancellation is seen."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        look_at(FILES, cancellation.check)


@pytest.mark.parametrize("size", [0, 1 << 20, (5 << 20) + 1, 12 << 20])
def test_what_arrives_is_what_was_sent(cloud: Any, heard: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """In one piece or in parts; while it is used it is there, and then it is not."""
    monkeypatch.setattr("prebuilt.codebuild.upload._PART_BYTES", 5 << 20)
    sent = look_at({"file": BytesContent(b"abcdefgh" * (size // 8))}, lambda: None)
    counted: list[int] = []
    heard.add_total = heard.advance = counted.append
    store = ContextStore(s3=cloud.client("s3"), bucket="contexts", prefix="some/prefix")
    with store.holding(sent, heard, Cancellation()) as key:
        assert key.startswith(f"some/prefix/{sent.content_id}-")
        assert cloud.keys() == [key]
        assert cloud.client("s3").get_object(Bucket="contexts", Key=key)["Body"].read() == b"".join(sent.chunks())
    assert cloud.keys() == []
    assert sum(counted) == 2 * sent.size_bytes


def test_an_upload_in_parts_names_its_checksums(cloud: Any, heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 refuses parts with checksums, which boto3 adds, in an upload that named no algorithm.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/tutorial-s3-mpu-additional-checksums.html
    """
    monkeypatch.setattr("prebuilt.codebuild.upload._PART_BYTES", 5 << 20)
    s3, asked = cloud.client("s3"), {}
    s3.meta.events.register("provide-client-params.s3", lambda params, model, **_: asked.update({model.name: params}))
    store = ContextStore(s3=s3, bucket="contexts", prefix="some/prefix")
    with store.holding(look_at({"large": BytesContent(bytes(11 << 20))}, lambda: None), heard, Cancellation()):
        assert asked["CreateMultipartUpload"]["ChecksumAlgorithm"] == "CRC32"
        parts = asked["CompleteMultipartUpload"]["MultipartUpload"]["Parts"]
        assert len(parts) > 1
        assert all(part["ChecksumCRC32"] for part in parts)
