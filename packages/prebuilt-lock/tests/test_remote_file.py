from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt.core.errors import DigestMismatchError, FetchError
from prebuilt.core.retry import Backoff
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.pylock import DistFile
from prebuilt.lock.remote_file import RemoteFiles
from prebuilt.testing.python_index import PackageIndex, make_wheel


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PackageIndex]:
    """An index with one wheel."""
    with PackageIndex().serving() as served:
        served.add(make_wheel(tmp_path, "alpha", "1.0"))
        yield served


@pytest.fixture
def file(index: PackageIndex) -> DistFile:
    """The wheel, of which only the hash is known."""
    url = index.url.removesuffix("/simple") + "/files/alpha-1.0-py3-none-any.whl"
    return DistFile(url=url, sha256=index.project("alpha")[0].stated_sha256, size_bytes=None)


def files(index: PackageIndex, tmp_path: Path) -> RemoteFiles:
    """Return remote files of the index, retried at once."""
    config = IndexConfig(indexes=(index.url_with_credentials,), home=tmp_path)
    return RemoteFiles(config=config, backoff=Backoff(attempts=3, base_s=0.0))


def test_size_is_asked_for(index: PackageIndex, file: DistFile, tmp_path: Path):
    """A size alone costs no download."""
    measured = files(index, tmp_path).measure(file)
    assert measured.size_bytes == (tmp_path / file.filename).stat().st_size
    assert [request.split()[0] for request in index.requests] == ["HEAD"]


def test_known_files_are_not_asked_about(index: PackageIndex, tmp_path: Path):
    """What the index states is taken; the download checks it."""
    known = DistFile(url=index.url, sha256="0" * 64, size_bytes=7)
    assert files(index, tmp_path).measure(known) is known
    assert index.requests == []


def test_download_with_credentials(index: PackageIndex, file: DistFile, tmp_path: Path):
    """Credentials of the index serve its files."""
    index.username, index.password = "me", "pw"
    path = files(index, tmp_path).download(file, tmp_path / "there")
    assert path.read_bytes() == (tmp_path / file.filename).read_bytes()


def test_wrong_hash(index: PackageIndex, file: DistFile, tmp_path: Path):
    """A file that is not what the index announces is refused, and not kept."""
    wrong = DistFile(url=file.url, sha256="0" * 64, size_bytes=None)
    with pytest.raises(DigestMismatchError, match="0" * 64):
        files(index, tmp_path).download(wrong, tmp_path / "there")
    assert not list((tmp_path / "there").glob("*"))


@pytest.mark.parametrize(("status", "tries"), [(503, 3), (404, 1), (401, 1)])
def test_failures(index: PackageIndex, file: DistFile, tmp_path: Path, status: int, tries: int):
    """What may pass is tried again, what will not is told at once, with the place."""
    index.failing_with = status
    with pytest.raises(FetchError, match=f"{file.url}.*{status}"):
        files(index, tmp_path).download(file, tmp_path / "there")
    assert len(index.requests) == tries
    assert not list((tmp_path / "there").glob("*"))


def test_host_that_is_not_there(index: PackageIndex, tmp_path: Path):
    """A host that does not answer is named."""
    gone = DistFile(url="http://127.0.0.1:9/alpha-1.0.tar.gz", sha256=None, size_bytes=None)
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9"):
        files(index, tmp_path).download(gone, tmp_path)
