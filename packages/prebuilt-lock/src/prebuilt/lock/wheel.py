"""A wheel's files as they are once installed, straight from the archive.

The hashes in a wheel's RECORD are not checked: the archive's own SHA-256 was, against the lock, and each member's CRC is as
it is read.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import Parser

from prebuilt.core.errors import InvalidValueError, PackageError
from prebuilt.core.lock import Wheel
from prebuilt.core.tree import BytesContent, Content, FileEntry, check_tree_path
from prebuilt.lock.install_target import InstallTarget
from prebuilt.lock.scripts import console_script, console_scripts, rewritten
from prebuilt.lock.zip_archive import ZipArchive, ZipMember

_INSTALLER = b"metaflow-prebuilt\n"
_SCRIPT_MARK = b"#!python"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Installed:
    """One file at its place: path relative to the prefix, and what RECORD says of it."""

    path: str
    content: Content
    executable: bool = False
    recorded: tuple[str, str] = ("", "")


def wheel_entries(archive: ZipArchive, wheel: Wheel, target: InstallTarget) -> list[FileEntry]:
    """Return the files of `wheel`, sorted by path; their contents read from `archive`, which must stay open.

    Scripts get the target's interpreter, entry points become scripts, INSTALLER and RECORD are written anew.

    Raises:
        PackageError: The archive is not a wheel that can be installed, or one of its paths leads out of the prefix.

    Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    reader = _WheelReader(archive, wheel, target)
    files = {file.path: file for file in reader.files()}
    record = reader.record(list(files.values()))
    files[record.path] = record
    return [
        FileEntry(path=target.in_tree(path), content=file.content, executable=file.executable)
        for path, file in sorted(files.items())
    ]


class _WheelReader:
    def __init__(self, archive: ZipArchive, wheel: Wheel, target: InstallTarget) -> None:
        self._wheel, self._target = wheel, target
        self._members: dict[str, ZipMember] = {}
        for member in archive.members():
            if member.name in self._members:
                raise self._refused(f"it has {member.name} twice")
            self._members[self._checked(member.name)] = member
        self._dist_info = self._find_dist_info()
        self._data = self._dist_info.removesuffix(".dist-info") + ".data/"
        self._check_version()
        self._recorded = self._read_record()

    def files(self) -> Iterator[_Installed]:
        """Yield every file but RECORD; of two at one place the later is meant."""
        python = self._target.python
        rewritten_later = {f"{self._dist_info}/RECORD", f"{self._dist_info}/INSTALLER"}
        for name, member in sorted(self._members.items()):
            if name not in rewritten_later and not _is_bytecode(name):
                yield self._installed(name, member)
        entry_points = self._text("entry_points.txt") or ""
        for name, (module, attribute) in sorted(console_scripts(entry_points, of=self._wheel.filename).items()):
            yield _made(f"bin/{name}", console_script(module, attribute, python), executable=True)
        yield _made(f"{self._target.site_packages}/{self._dist_info}/INSTALLER", _INSTALLER)

    def record(self, files: list[_Installed]) -> _Installed:
        """Return the RECORD of `files`: paths relative to site-packages, sorted. Bytecode need not be named in it."""
        path = f"{self._target.site_packages}/{self._dist_info}/RECORD"
        rows = [(_relative(file.path, self._target.site_packages), *file.recorded) for file in files]
        own = (_relative(path, self._target.site_packages), "", "")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(sorted([*rows, own]))
        return _made(path, text.getvalue().encode())

    def _installed(self, name: str, member: ZipMember) -> _Installed:
        path = self._place(name)
        if name.startswith(f"{self._data}scripts/"):
            with member.open() as stream:
                if stream.read(len(_SCRIPT_MARK)) == _SCRIPT_MARK:
                    return _made(path, rewritten(member.read(), self._target.python), executable=True)
        executable = member.is_executable or path.startswith("bin/")
        return _Installed(path=path, content=member, executable=executable, recorded=self._recorded.get(name, ("", "")))

    def _place(self, name: str) -> str:
        """Return the path, relative to the prefix, of the archive's file `name`."""
        if not name.startswith(self._data):
            return f"{self._target.site_packages}/{name}"
        scheme, _, rest = name.removeprefix(self._data).partition("/")
        places = {
            "purelib": f"{self._target.site_packages}/{rest}",
            "platlib": f"{self._target.site_packages}/{rest}",
            "scripts": f"bin/{rest}",
            "headers": f"include/site/python{self._target.python_xy}/{self._wheel.name}/{rest}",
            "data": rest,
        }
        if not rest or scheme not in places:
            raise self._refused(f"nothing says where {name} belongs")
        return places[scheme]

    def _find_dist_info(self) -> str:
        folders = {name.partition("/")[0] for name in self._members if "/" in name}
        found = sorted(folder for folder in folders if folder.endswith(".dist-info"))
        if len(found) != 1:
            raise self._refused(f"it has {len(found)} .dist-info folders, and a wheel has one")
        return found[0]

    def _check_version(self) -> None:
        version = Parser().parsestr(self._text("WHEEL") or "").get("Wheel-Version", "")
        if version.partition(".")[0] != "1":
            raise self._refused(f"its Wheel-Version is {version!r}, and only 1.x is known")

    def _read_record(self) -> dict[str, tuple[str, str]]:
        text = self._text("RECORD")
        if text is None:
            raise self._refused("it has no RECORD")
        return {row[0]: (row[1], row[2]) for row in csv.reader(io.StringIO(text)) if len(row) == 3}  # noqa: PLR2004

    def _text(self, name: str) -> str | None:
        member = self._members.get(f"{self._dist_info}/{name}")
        try:
            return member.read().decode() if member else None
        except UnicodeDecodeError as error:
            raise self._refused(f"its {name} is not UTF-8: {error}") from error

    def _checked(self, name: str) -> str:
        try:
            return check_tree_path(name)
        except InvalidValueError as error:
            raise self._refused(f"its path {name!r} leads out of the prefix or is not normalised") from error

    def _refused(self, reason: str) -> PackageError:
        return PackageError(f"install {self._wheel.filename}", reason=reason)


def _relative(path: str, folder: str) -> str:
    """Return `path` as seen from `folder`. Most files are below it, and need not ask where this process is, as relpath does."""
    below = f"{folder}/"
    return path.removeprefix(below) if path.startswith(below) else posixpath.relpath(path, folder)


def _is_bytecode(name: str) -> bool:
    """Return whether the file is bytecode beside its source: made elsewhere, bound to a time that does not survive."""
    return name.endswith(".pyc") and "/__pycache__/" in f"/{name}"


def _made(path: str, data: bytes, *, executable: bool = False) -> _Installed:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return _Installed(
        path=path, content=BytesContent(data), executable=executable, recorded=(f"sha256={digest}", str(len(data)))
    )
