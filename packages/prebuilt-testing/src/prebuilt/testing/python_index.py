"""Wheels and sdists made by hand, and a package index on loopback that serves them: PyPI resolution without a network."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import html
import io
import json
import re
import ssl
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from prebuilt.testing.served import serving

_EPOCH = (2020, 1, 1, 0, 0, 0)
_MTIME = 1577836800
_JSON = "application/vnd.pypi.simple.v1+json"

_BACKEND = '''"""A build backend that needs nothing: it zips the project's packages."""
import base64, csv, hashlib, io, json, pathlib, zipfile

RECIPE = json.loads(pathlib.Path(__file__).with_name("recipe.json").read_text())

def _write(folder, with_files):
    if RECIPE["fails_with"]:
        raise SystemExit(RECIPE["fails_with"])
    files = {f"{RECIPE['stem']}.dist-info/METADATA": RECIPE["metadata"].encode(),
             f"{RECIPE['stem']}.dist-info/WHEEL":
                 f"Wheel-Version: 1.0\\nGenerator: hand\\nRoot-Is-Purelib: true\\nTag: {RECIPE['tag']}\\n".encode()}
    root = pathlib.Path(__file__).parent
    if with_files:
        files.update({name: (root / name).read_bytes() for name in RECIPE["files"]})
    return files

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    for name, data in _write(folder, False).items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return f"{RECIPE['stem']}.dist-info"

def build_wheel(folder, config_settings=None, metadata_directory=None):
    files, rows = _write(folder, True), io.StringIO()
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        csv.writer(rows, lineterminator="\\n").writerow([name, f"sha256={digest}", len(data)])
    record = f"{RECIPE['stem']}.dist-info/RECORD"
    files[record] = f"{rows.getvalue()}{record},,\\n".encode()
    wheel = f"{RECIPE['stem']}-{RECIPE['tag']}.whl"
    with zipfile.ZipFile(pathlib.Path(folder, wheel), "w") as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
    return wheel
'''


def _escaped(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata(
    name: str, version: str, requires: Sequence[str], extras: Mapping[str, Sequence[str]], requires_python: str | None
) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    for extra, needed in extras.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {requirement}; extra == '{extra}'" for requirement in needed]
    return "\n".join(lines) + "\n"


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    requires: Sequence[str] = (),
    extras: Mapping[str, Sequence[str]] | None = None,
    requires_python: str | None = None,
    tag: str = "py3-none-any",
    dist_info: Mapping[str, str] | None = None,
    compressed: bool = True,
) -> Path:
    """Write a wheel into `folder` and return its path. The same arguments give the same bytes.

    Args:
        folder: Made if it is not there.
        name: Of the distribution.
        version: Of the distribution.
        files: Path within the wheel to content; a module named after the distribution unless given.
        requires: ``Requires-Dist`` values.
        extras: Name of an extra to its ``Requires-Dist`` values.
        requires_python: Versions of Python that it is for; None: any.
        tag: Compatibility tag, compressed sets too: ``cp311-cp311-manylinux_2_17_x86_64``.
        dist_info: Further files of the ``.dist-info`` folder, such as ``entry_points.txt``.
        compressed: Whether its members are, which takes long for noise.
    """
    stem = f"{_escaped(name)}-{version}"
    content = {_escaped(name) + ".py": f"__version__ = {version!r}\n"} if files is None else files
    info = {
        "METADATA": _metadata(name, version, requires, extras or {}, requires_python),
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **(dist_info or {}),
    }
    members = {path: data.encode() if isinstance(data, str) else data for path, data in content.items()}
    members |= {f"{stem}.dist-info/{path}": text.encode() for path, text in info.items()}
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-{tag}.whl"
    how = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in sorted(members.items()):
            _add(archive, path, data, how)
        _add(archive, f"{stem}.dist-info/RECORD", _record(members, f"{stem}.dist-info/RECORD"), how)
    return wheel


def _add(archive: zipfile.ZipFile, path: str, data: bytes, how: int) -> None:
    info = zipfile.ZipInfo(path, _EPOCH)
    info.compress_type = how
    info.external_attr = 0o100644 << 16
    archive.writestr(info, data)


def _record(members: Mapping[str, bytes], own: str) -> bytes:
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for path, data in sorted(members.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow([path, f"sha256={digest}", len(data)])
    writer.writerow([own, "", ""])
    return rows.getvalue().encode()


def make_sdist(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    fails_with: str = "",
) -> Path:
    """Write an sdist into `folder` and return its path. It builds without a network: its backend is inside it.

    Args:
        folder: Made if it is not there.
        name: Of the distribution.
        version: Of the distribution.
        files: Path to content; a module named after the distribution unless given.
        requires: ``Requires-Dist`` values, known only after its backend ran.
        tag: Of the wheel that it builds: a platform's tag makes it look like compiled code.
        fails_with: What the backend says while it fails; empty: it works.
    """
    stem = f"{_escaped(name)}-{version}"
    content = {_escaped(name) + ".py": f"__version__ = {version!r}\n"} if files is None else dict(files)
    metadata = _metadata(name, version, requires, {}, None)
    recipe = {"stem": stem, "tag": tag, "metadata": metadata, "files": list(content), "fails_with": fails_with}
    backend = '[build-system]\nrequires = []\nbuild-backend = "hand_backend"\nbackend-path = ["."]\n'
    members = {
        **content,
        "PKG-INFO": f"Metadata-Version: 1.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": backend,
        "hand_backend.py": _BACKEND,
        "recipe.json": json.dumps(recipe),
    }
    folder.mkdir(parents=True, exist_ok=True)
    sdist = folder / f"{stem}.tar.gz"
    with (
        sdist.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=_MTIME) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path, text in sorted(members.items()):
            entry = tarfile.TarInfo(f"{stem}/{path}")
            entry.size, entry.mtime = len(text.encode()), _MTIME
            tar.addfile(entry, io.BytesIO(text.encode()))
    return sdist


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFile:
    """One file of an index and what its page says of it."""

    path: Path
    yanked: str | None = None
    has_hash: bool = True
    sha256: str | None = None

    @property
    def project(self) -> str:
        """Normalised name of the project."""
        return _normalized(
            self.path.name.rpartition("-")[0] if self.path.suffix == ".gz" else self.path.name.split("-")[0]
        )

    @property
    def stated_sha256(self) -> str:
        """What the index says the hash is: the true one, unless a wrong one was asked for."""
        return self.sha256 or hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(kw_only=True)
class PackageIndex:
    """A package index on loopback (PEP 503 and PEP 691). Files may be added while it runs.

    Attributes:
        username: With `password`: who may read; empty: everybody.
        requests: ``METHOD /path`` of each request, oldest first.
        failing_with: HTTP status that every request gets from now on; None: none.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    requests: list[str] = field(default_factory=list)
    failing_with: int | None = None
    tls: ssl.SSLContext | None = None
    _files: list[IndexedFile] = field(default_factory=list)
    _port: int = 0

    def add(self, path: Path, *, yanked: str | None = None, has_hash: bool = True, sha256: str | None = None) -> None:
        """Serve the wheel or sdist at `path`.

        Args:
            path: Of the file.
            yanked: Reason for which it is yanked; None: it is not.
            has_hash: Whether the index tells its hash.
            sha256: A hash to state in place of the true one.
        """
        self._files.append(IndexedFile(path=path, yanked=yanked, has_hash=has_hash, sha256=sha256))

    @property
    def url(self) -> str:
        """Of the index, without credentials."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}/simple"

    @property
    def url_with_credentials(self) -> str:
        """Of the index, with the credentials that it wants."""
        return self.url.replace("://", f"://{self.username}:{self.password}@") if self.username else self.url

    @contextmanager
    def serving(self) -> Iterator[PackageIndex]:
        """Serve until the body ends."""
        server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"index": self}))
        if self.tls is not None:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self._port = server.server_address[1]
        with serving(server):
            yield self

    def project(self, name: str) -> list[IndexedFile]:
        """Return the files of a project."""
        return [file for file in self._files if file.project == name]

    def file(self, filename: str) -> IndexedFile | None:
        """Return the file of that name, or None."""
        return next((file for file in self._files if file.path.name == filename), None)

    def admits(self, authorization: str | None) -> bool:
        """Return whether a request with that ``Authorization`` header may read."""
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return not self.username or authorization == f"Basic {expected}"


def _as_json(name: str, files: Sequence[IndexedFile]) -> bytes:
    entries: list[dict[str, Any]] = [
        {
            "filename": file.path.name,
            "url": f"../../files/{file.path.name}",
            "hashes": {"sha256": file.stated_sha256} if file.has_hash else {},
            "yanked": file.yanked if file.yanked is not None else False,
            **({"size": file.path.stat().st_size} if file.has_hash else {}),
        }
        for file in files
    ]
    return json.dumps({"meta": {"api-version": "1.0"}, "name": name, "files": entries}).encode()


def _as_html(files: Sequence[IndexedFile]) -> bytes:
    lines = []
    for file in files:
        fragment = f"#sha256={file.stated_sha256}" if file.has_hash else ""
        yanked = f' data-yanked="{html.escape(file.yanked)}"' if file.yanked is not None else ""
        lines.append(f'<a href="../../files/{file.path.name}{fragment}"{yanked}>{file.path.name}</a><br>')
    return ("<!DOCTYPE html><html><body>" + "\n".join(lines) + "</body></html>").encode()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away in the middle are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """Answers for one index."""

    protocol_version = "HTTP/1.1"
    index: ClassVar[PackageIndex]

    def do_GET(self) -> None:
        """Answer a GET or HEAD."""
        self.index.requests.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        if self.index.failing_with is not None:
            self._answer(self.index.failing_with, b"", "text/plain")
        elif not self.index.admits(self.headers.get("Authorization")):
            self._answer(401, b"", "text/plain", {"WWW-Authenticate": 'Basic realm="index"'})
        elif path.startswith("/simple/"):
            self._page(path.removeprefix("/simple/").strip("/"))
        else:
            self._file(path.removeprefix("/files/"))

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _page(self, name: str) -> None:
        files = self.index.project(name)
        if not files:
            self._answer(404, b"", "text/plain")
        elif _JSON in self.headers.get("Accept", ""):
            self._answer(200, _as_json(name, files), _JSON)
        else:
            self._answer(200, _as_html(files), "text/html")

    def _file(self, filename: str) -> None:
        found = self.index.file(filename)
        if found is None:
            self._answer(404, b"", "text/plain")
            return
        data = found.path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, data, "application/octet-stream", {"Accept-Ranges": "bytes"})
            return
        first = int(wanted[1]) if wanted[1] else len(data) - int(wanted[2])
        last = min(int(wanted[2]), len(data) - 1) if wanted[1] and wanted[2] else len(data) - 1
        ranged = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self._answer(206, data[first : last + 1], "application/octet-stream", ranged)

    def _answer(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet: requests are in the index's own log."""
