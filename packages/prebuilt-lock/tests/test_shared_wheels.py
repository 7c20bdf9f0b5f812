"""Wheels that no index has: who deploys the same requirements elsewhere gets them with the lock."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prebuilt.core import locks as core_locks
from prebuilt.core.documents import FolderDocuments
from prebuilt.core.errors import DigestMismatchError, FetchError
from prebuilt.core.local_sources import local_digests
from prebuilt.core.lock import Lock
from prebuilt.core.locks import Locks
from prebuilt.core.platforms import Platform
from prebuilt.core.progress import LineProgress
from prebuilt.core.requirements import Requirements, Target
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir
from prebuilt.lock.fetch import PackageFiles
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.resolver import LockResolver
from prebuilt.lock.wheelhouse import wheelhouse
from prebuilt.testing.python_index import PackageIndex, make_sdist, make_wheel

SLIM = Target(platform=Platform.parse("linux/amd64"), glibc="2.36", base_python="3.11.7")


class Machine:
    """One with a cache of its own; all share a registry's documents."""

    def __init__(self, folder: Path, documents: FolderDocuments, index: PackageIndex) -> None:
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PIP_CONFIG_FILE": os.devnull,
            "UV_DEFAULT_INDEX": index.url,
            "METAFLOW_PREBUILT_CACHE_DIR": str(folder / "cache"),
        }
        self.settings = Settings(environ, {})
        self.notes: list[str] = []
        self.locks = Locks(
            resolver=LockResolver(self.settings, folder=self.project),
            documents=documents,
            progress=LineProgress(self.notes.append),
            wheels=wheelhouse(self.settings),
        )

    def lock(self, **pypi: str) -> Lock:
        """Return the lock of packages, resolved or kept."""
        local = local_digests(pypi, self.project)
        return self.locks.get(Requirements(python="3.11", target=SLIM, pypi=pypi, local=local))

    def content(self, lock: Lock) -> bytes:
        """Return the file of the lock's one package, as builders get it."""
        with PackageFiles(self.settings, IndexConfig(), cache_dir(self.settings)) as files:
            (package,) = lock.packages
            with files.get(package) as path:
                return path.read_bytes()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PackageIndex]:
    """A package index that has source only."""
    with PackageIndex().serving() as served:
        served.add(make_sdist(tmp_path / "dist", "pure", "1.0"))
        yield served


@pytest.fixture
def machine(tmp_path: Path, index: PackageIndex) -> Callable[[str], Machine]:
    """Give a function that makes machines."""
    return lambda name: Machine(tmp_path / name, FolderDocuments(tmp_path / "documents"), index)


@pytest.mark.parametrize("kind", ["source", "path"])
def test_the_second_machine_has_the_first_ones_wheel(machine: Callable[[str], Machine], kind: str):
    """Built from source, or given by a path: the lock is the same, and so are the bytes."""
    one, two = machine("one"), machine("two")
    spec = {"pure": "1.0"}
    if kind == "path":
        spec = {"pure": "@ ./pure-1.0-py3-none-any.whl"}
        for each in (one, two):
            make_wheel(each.project, "pure", "1.0")
    lock = one.lock(**spec)
    again = two.lock(**spec)
    assert again == lock
    assert two.content(again) == one.content(lock)


def test_damaged_bytes_are_refused(machine: Callable[[str], Machine], tmp_path: Path):
    """What comes with a lock is checked like every other file."""
    machine("one").lock(pure="1.0")
    next((tmp_path / "documents").glob("wheel-*")).write_bytes(b"damaged")
    with pytest.raises(DigestMismatchError, match=r"pure-1\.0.*METAFLOW_PREBUILT_REFRESH=1"):
        machine("two").lock(pure="1.0")


def test_a_large_wheel_stays_where_it_is(machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch):
    """That is said when it is locked, and again where it lacks."""
    monkeypatch.setattr(core_locks, "MAX_WHEEL_BYTES", 10)
    one, two = machine("one"), machine("two")
    one.lock(pure="1.0")
    assert any("pure-1.0" in note and "package index" in note for note in one.notes)
    with pytest.raises(FetchError, match="resolve again"):
        two.content(two.lock(pure="1.0"))
