"""Unpacking: a layer's tar becomes a folder that overlay mounts take as a lower one, without root and without leaving the folder."""

# Paths are strings here: a layer has 100,000 files, and pathlib would take longer than the disk.
# ruff: noqa: PTH101, PTH102, PTH108, PTH115, PTH211

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from typing import IO

from prebuilt.core.errors import ContainerError

WHITEOUT = ".wh."
OPAQUE_MARK = ".wh..wh..opq"
AUFS_METADATA = ".wh..wh."
"""Source: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts; what else begins so is aufs's own."""

OPAQUE_ATTRIBUTE = "user.overlay.opaque"
"""Source: https://docs.kernel.org/filesystems/overlayfs.html, "whiteouts and opaque directories", for mounts with userxattr."""

_PERMISSIONS = 0o1777  # no set-id bits: no_new_privs has none of them work
_MAX_LINKS = 40  # the kernel's own limit
_LAST_TIME_S = 1 << 33  # some file systems end here; a layer may claim any time
_CHUNK_BYTES = 1 << 20


def unpack_layer(archive: tarfile.TarFile, root: str) -> None:
    """Unpack a layer into the empty folder `root`, which nobody else changes meanwhile.

    Files belong to this user; of their attributes modes and times are kept. Device nodes are left out. Whiteouts become overlay's:
    a device 0:0, which every user may make since Linux 5.8, or the opaque attribute. Symbolic links are kept as they are, but no
    entry is written through one to outside of `root`: those on the way to an entry are followed as if `root` were ``/``.

    Raises:
        ContainerError: An entry is not what a layer may hold.
        OSError: The disk is full, not writable, or lacks extended attributes.
        tarfile.TarError: The archive is damaged.
    """
    unpacking = _Unpacking(root)
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # tarfile would keep all of them
        unpacking.add(archive, member)
    unpacking.finish()


class _Unpacking:
    def __init__(self, root: str) -> None:
        self._root = root
        self._resolved: dict[str, str] = {"": root}  # folder of the archive → folder on disk
        self._folders: dict[str, tuple[int, int]] = {}  # folder on disk → mode and time, set last: writing changes both

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write one entry."""
        path = _normalised(member.name)
        if not path:  # the root itself
            return
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent)
        target = f"{folder}/{name}"
        if name == OPAQUE_MARK:
            os.setxattr(folder, OPAQUE_ATTRIBUTE, b"y")
        elif name.startswith(AUFS_METADATA):
            pass
        elif name.startswith(WHITEOUT):
            self._add_whiteout(f"{folder}/{name.removeprefix(WHITEOUT)}", member)
        elif member.isdir():
            self._add_folder(target, member)
        elif member.isreg():
            content = archive.extractfile(member)
            assert content is not None  # noqa: S101 - for the type checker: a regular file has content
            self._add_file(target, member, content)
        elif member.issym():
            self._clear(target)
            os.symlink(member.linkname, target)
        elif member.islnk():
            self._add_link(target, member)
        elif member.isfifo():
            self._clear(target)
            os.mkfifo(target, member.mode & _PERMISSIONS)

    def finish(self) -> None:
        """Give the folders their modes and times, the deepest first."""
        for folder in sorted(self._folders, reverse=True):
            mode, time_s = self._folders[folder]
            os.chmod(folder, mode)
            os.utime(folder, (time_s, time_s))

    def _add_file(self, target: str, member: tarfile.TarInfo, content: IO[bytes]) -> None:
        self._clear(target)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while chunk := content.read(_CHUNK_BYTES):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            os.fchmod(fd, member.mode & _PERMISSIONS)
            os.utime(fd, (_time_s(member), _time_s(member)))
        finally:
            os.close(fd)

    def _add_folder(self, target: str, member: tarfile.TarInfo) -> None:
        mode = _mode(target)
        if mode is None or not stat.S_ISDIR(mode):
            self._make_folder(target, mode)
        self._folders[target] = member.mode & _PERMISSIONS, _time_s(member)

    def _make_folder(self, target: str, mode: int | None) -> None:
        """Make a folder where something with `mode` is; over a whiteout of this layer it hides what is below."""
        self._clear(target)
        os.mkdir(target, 0o755)
        if mode is not None and stat.S_ISCHR(mode):
            os.setxattr(target, OPAQUE_ATTRIBUTE, b"y")

    def _add_link(self, target: str, member: tarfile.TarInfo) -> None:
        path = _normalised(member.linkname)
        parent, _, name = path.rpartition("/")
        source = f"{self._folder(parent)}/{name}"
        mode = _mode(source)
        if not name or mode is None or stat.S_ISDIR(mode):
            raise ContainerError(
                f"unpack the hard link {member.name}", reason=f"the layer has no file {member.linkname} before it"
            )
        if source != target:
            self._clear(target)
            os.link(source, target, follow_symlinks=False)

    def _add_whiteout(self, target: str, member: tarfile.TarInfo) -> None:
        """Hide what is below `target`. What this layer itself has there stays: whiteouts are for lower layers only."""
        if target.rpartition("/")[2] in {"", ".", ".."}:
            raise ContainerError(f"unpack {member.name!r}", reason="it is a whiteout of nothing")
        mode = _mode(target)
        if mode is None:
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        elif stat.S_ISDIR(mode):
            os.setxattr(target, OPAQUE_ATTRIBUTE, b"y")

    def _clear(self, target: str) -> None:
        """Remove what an earlier entry left at `target`."""
        mode = _mode(target)
        if mode is None:
            return
        self._resolved = {"": self._root}
        if stat.S_ISDIR(mode):
            inside = f"{target}/"
            self._folders = {f: v for f, v in self._folders.items() if f != target and not f.startswith(inside)}
            shutil.rmtree(target)
        else:
            os.unlink(target)

    def _folder(self, path: str) -> str:
        """Return the folder on disk of a folder of the archive; it is made if it is not there."""
        known = self._resolved.get(path)
        if known is None:
            known = self._walk(path)
            self._resolved[path] = known
        return known

    def _walk(self, path: str) -> str:
        done: list[str] = []
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":  # of a symbolic link: as in the kernel, the parent of the root is the root
                done = done[:-1]
                continue
            here = "/".join((self._root, *done, part))
            mode = _mode(here)
            if mode is not None and stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise ContainerError(f"unpack into {path}", reason="its symbolic links go in a circle")
                link = os.readlink(here)
                done = [] if link.startswith("/") else done
                todo += link.split("/")[::-1]
                continue
            if mode is None or stat.S_ISCHR(mode):
                self._make_folder(here, mode)
            elif not stat.S_ISDIR(mode):
                raise ContainerError(
                    f"unpack into {path}", reason=f"{'/'.join((*done, part))} is not a folder in this layer"
                )
            done.append(part)
        return "/".join((self._root, *done))


def _normalised(name: str) -> str:
    """Return an entry's name relative to the root; refuse those that would leave it."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in name:
        raise ContainerError(f"unpack {name!r}", reason="an entry of a layer must not name its parent folder")
    return "/".join(parts)


def _mode(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def _time_s(member: tarfile.TarInfo) -> int:
    return max(0, min(int(member.mtime), _LAST_TIME_S))
