"""What tests of installing share: a channel of real conda packages, and how to look at a tree."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import pytest

from prebuilt.core.lock import CondaPackage
from prebuilt.core.platforms import Platform
from prebuilt.core.tree import DirectoryEntry, Entry, FileEntry
from prebuilt.lock.install_target import InstallTarget
from prebuilt.testing.conda_channel import CondaChannel
from prebuilt.testing.conda_samples import sample_channel

Listing = dict[str, str | bytes | None]


@pytest.fixture(scope="session")
def channel(tmp_path_factory: pytest.TempPathFactory) -> CondaChannel:
    """Give a channel of real packages, one for everything that a package can be."""
    return sample_channel(tmp_path_factory.mktemp("channel"))


@pytest.fixture
def target() -> InstallTarget:
    """Give the target of an image for linux/amd64 with the running Python's version."""
    xy = "{}.{}".format(*sys.version_info)
    return InstallTarget(
        python_version=f"{xy}.{sys.version_info[2]}",
        platform=Platform(os="linux", architecture="amd64"),
        site_packages=f"lib/python{xy}/site-packages",
    )


@pytest.fixture
def listing() -> Callable[[Iterable[Entry], InstallTarget], Listing]:
    """Give a function that reads a tree: path relative to the prefix to bytes, link target, or None for a folder."""

    def read(entries: Iterable[Entry], target: InstallTarget) -> Listing:
        return {target.in_prefix(entry.path): _content(entry) for entry in entries}

    return read


def _content(entry: Entry) -> str | bytes | None:
    if isinstance(entry, FileEntry):
        with entry.content.open() as stream:
            data = stream.read()
        assert len(data) == entry.content.size
        return data
    if isinstance(entry, DirectoryEntry):
        return None
    return entry.target


@pytest.fixture
def conda_package(channel: CondaChannel) -> Callable[..., CondaPackage]:
    """Give a function that locks one package of the channel, by name, version (where it has several) and subdir."""
    import asyncio

    from rattler import RepoDataRecord

    def lock(name: str, subdir: str = "linux-64", url: str | None = None, version: str | None = None) -> CondaPackage:
        named = (path for path in channel.packages if path.name.rsplit("-", 2)[0] == name)
        (path,) = (
            path
            for path in named
            if path.parent.name in {subdir, "noarch"} and version in {None, path.name.rsplit("-", 2)[1]}
        )
        record = asyncio.run(RepoDataRecord.from_package_archive(path))
        assert record.sha256 is not None
        assert record.size is not None
        return CondaPackage(
            name=name,
            version=str(record.version),
            build=str(record.build),
            build_number=record.build_number,
            subdir=record.subdir,
            url=(url or channel.url) + f"/{record.subdir}/{path.name}",
            sha256=record.sha256.hex(),
            size_bytes=record.size,
            role="user",
            noarch="python" if record.noarch.python else "generic" if record.noarch.generic else None,
            depends=tuple(record.depends),
            python_site_packages_path=record.python_site_packages_path,
        )

    return lock
