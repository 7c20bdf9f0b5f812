"""The archive in which a Dockerfile and its context travel."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from prebuilt.core.context_archive import context_archive, published_context
from prebuilt.core.errors import InvalidValueError, StorageError
from prebuilt.core.tree import BytesContent, PathContent


def _archive(dockerfile: str, context: dict) -> bytes:
    return b"".join(context_archive(dockerfile, context))


def _members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


def test_same_files_give_same_bytes(tmp_path: Path) -> None:
    """Neither the order of the files nor their times and modes on disk are seen."""
    (tmp_path / "program").write_bytes(b"x" * 700)
    (tmp_path / "program").chmod(0o700)
    on_disk = {"b/c": BytesContent(b"2"), "program": PathContent(tmp_path / "program")}
    in_memory = {"program": BytesContent(b"x" * 700), "b/c": BytesContent(b"2")}
    assert _archive("FROM scratch", on_disk) == _archive("FROM scratch", in_memory)


def test_is_read_by_others() -> None:
    """Names of any length, contents of any size and folders come out again, owned by root and without a time."""
    context = {f"packages/{'a' * 64}/{'n' * 150}.whl": BytesContent(b"1" * 512), "layers/ä.json": BytesContent(b"")}
    data = _archive("FROM scratch\n", context)
    members = _members(data)
    assert [name for name, member in members.items() if member.isdir()] == [
        "layers",
        "packages",
        f"packages/{'a' * 64}",
    ]
    assert {name for name, member in members.items() if member.isfile()} == {"Dockerfile", *context}
    assert {(m.uid, m.gid, m.uname, m.mtime) for m in members.values()} == {(0, 0, "", 0)}
    assert {m.mode for m in members.values()} == {0o644, 0o755}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile("Dockerfile")
        assert file is not None
        assert file.read() == b"FROM scratch\n"


def test_is_made_in_chunks(tmp_path: Path) -> None:
    """A large file is never in memory as a whole."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(5_000_000)
    chunks = [len(chunk) for chunk in context_archive("", {"large": PathContent(tmp_path / "large")})]
    assert max(chunks) == 1 << 20
    assert sum(chunks) % 512 == 0


def test_shrunken_file_is_an_error() -> None:
    """A file that ends before its announced size is an error, not an archive with a hole."""

    class Shrunken(BytesContent):
        @property
        def size(self) -> int:
            return 10

    with pytest.raises(StorageError, match=r"wheel.*7 bytes shorter"):
        _archive("", {"wheel": Shrunken(b"123")})


def test_vanished_file_is_named(tmp_path: Path) -> None:
    """A file that cannot be read any more is an error of this machine's disk, with its name."""
    with pytest.raises(StorageError, match=r"read wheel for a build context at packages/wheel: No such file"):
        _archive("", {"packages/wheel": PathContent(tmp_path / "wheel")})


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ""])
def test_names_stay_inside(name: str) -> None:
    """A name that leaves the context is refused."""
    with pytest.raises(InvalidValueError):
        _archive("", {name: BytesContent(b"")})


def test_published_files_are_text_or_bytes() -> None:
    """What ``build_and_push`` is given becomes contents; anything else is refused by name."""
    context = published_context({"a": "ä", "b": b"\0", "c": bytearray(b"1")})
    assert [content.open().read() for content in context.values()] == ["ä".encode(), b"\0", b"1"]
    with pytest.raises(InvalidValueError, match="context file d"):
        published_context({"d": 1})
