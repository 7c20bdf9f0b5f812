"""Base images of Debian's packages, for any architecture, also one whose programs this machine cannot run.

The packages are unpacked and none of their scripts is run, which takes seconds where debootstrap takes minutes. It is the base that
a user may well have: Debian's Python in ``/usr``, marked as externally managed, without pip.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from prebuilt.core.platforms import Platform
from prebuilt.core.tree import Entry, FileEntry, PathContent, SymlinkEntry
from prebuilt.oci.layout import LayoutRepository
from prebuilt.oci.repository import Repository
from prebuilt.testing.base_manifest import push_layer, push_manifest, tag_platforms
from prebuilt.testing.engines.cache import kept
from prebuilt.testing.engines.debian import debian_suite
from prebuilt.testing.machine import system_entries

SUITE = "bookworm"
"""The release of Debian."""

_PACKAGES = (
    "base-files bash coreutils dash debianutils findutils grep gzip hostname libc6 libgcc-s1 libstdc++6 sed tar".split()
)
_MERGED = {"bin", "lib", "lib64", "sbin"}  # links into usr, where the files belong
_LEFT_OUT = ("boot", "usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man", "var")


def make_debian_base(
    folder: Path, *, platforms: Sequence[Platform] = (), tag: str = "debian", with_python: bool = True
) -> str:
    """Put a base image of Debian into the image layout `folder`; return its reference. See :func:`push_debian_base`."""
    return push_debian_base(LayoutRepository(folder), platforms=platforms, tag=tag, with_python=with_python)


def push_debian_base(
    repository: Repository, *, platforms: Sequence[Platform] = (), tag: str = "debian", with_python: bool = True
) -> str:
    """Push a base image of Debian; return its reference.

    Args:
        repository: Where to.
        platforms: What for; an index is made of several. This machine's if there is none.
        tag: Of the image.
        with_python: Whether it has Python. It has bash, tar and gzip in any case.

    Raises:
        EngineError: This is no Debian machine, or the packages cannot be got.
    """
    manifests = {}
    with tempfile.TemporaryDirectory(prefix="prebuilt-debian-") as folder:
        scratch = Path(folder, "layer")
        for platform in platforms or (Platform.host(),):
            root = _root(platform, with_python=with_python)
            # What the machine has its say in, certificates, is in a layer of its own and never kept.
            trees = [list(_entries(root)), list(system_entries())]
            layers = [push_layer(repository, tree, scratch=scratch) for tree in trees]
            manifests[platform] = push_manifest(repository, platform, layers)
    return tag_platforms(repository, tag, manifests)


def _root(platform: Platform, *, with_python: bool) -> Path:
    """Return the folder of unpacked packages. Debian's words for architectures are those of images."""
    packages = [*_PACKAGES, *(["python3"] if with_python else [])]

    def unpack(folder: Path) -> None:
        with debian_suite(SUITE, architecture=platform.architecture) as suite:
            suite.unpack_closure(packages, folder)

    return kept(f"debian-{SUITE}-{platform.architecture}{'-python' if with_python else ''}", unpack)


def _entries(root: Path) -> Iterator[Entry]:
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        folders[:] = sorted(name for name in folders if not _is_left_out(place / name, root))
        for name in sorted([*files, *(name for name in folders if (place / name).is_symlink())]):
            yield _entry(place / name, root)


def _entry(path: Path, root: Path) -> Entry:
    relative = path.relative_to(root)
    name = str(Path("usr", relative) if relative.parts[0] in _MERGED else relative)
    if path.is_symlink():
        return SymlinkEntry(path=name, target=str(path.readlink()))
    return FileEntry(path=name, content=PathContent(path), executable=bool(path.stat().st_mode & stat.S_IXUSR))


def _is_left_out(path: Path, root: Path) -> bool:
    return path.relative_to(root).as_posix() in _LEFT_OUT
