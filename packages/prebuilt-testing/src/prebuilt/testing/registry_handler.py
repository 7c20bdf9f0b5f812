"""The distribution API, as an in-memory registry speaks it.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from prebuilt.testing.registry_auth import form_fields
from prebuilt.testing.registry_store import RefusedError, sha256_digest

if TYPE_CHECKING:
    from io import BufferedReader

    from prebuilt.testing.registry import InMemoryRegistry

_ROUTES = (
    (re.compile(r"/v2/"), "root"),
    (re.compile(r"(?:/v2)?/token"), "token"),
    (re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)"), "manifest"),
    (re.compile(r"/v2/(?P<name>.+)/blobs/uploads/"), "uploads"),
    (re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[^/]+)"), "upload"),
    (re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)"), "blob"),
    (re.compile(r"/v2/(?P<name>.+)/tags/list"), "tags"),
)
_READING = frozenset({"GET", "HEAD"})
_CHUNK = 1 << 16
_TLS_HANDSHAKE = b"\x16"


class ConnectionCutError(Exception):
    """The fault that is on says that the connection ends here."""


class RegistryHandler(BaseHTTPRequestHandler):
    """Answers the requests of one connection; what it knows is in `registry`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    registry: InMemoryRegistry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Write nothing: requests are kept in the registry's log."""

    def handle_one_request(self) -> None:
        """Answer one request; an attempt to speak TLS as Go's servers do, by which BuildKit knows that it is spoken to in plain HTTP."""
        try:
            first = cast("BufferedReader", self.rfile).peek(1)[:1]
        except TimeoutError:
            self.close_connection = True
            return
        if first == _TLS_HANDSHAKE:
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")
            self.close_connection = True
            return
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer any method."""
        self._answer()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names in the standard library

    def _answer(self) -> None:
        self._body_left = int(self.headers.get("Content-Length") or 0)
        self._chunks_left = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._record = self.registry.record(self.command, self.path, dict(self.headers.items()))
        try:
            self._serve()
        except ConnectionCutError:
            self.close_connection = True
        except RefusedError as refused:
            self._refuse(refused.status, refused.code, refused.message, refused.headers)

    def _serve(self) -> None:
        faults = self.registry.faults
        delay = faults.take(self.command, self.path, "delay")
        if delay is not None:
            time.sleep(delay.delay_s)
        dropped = faults.take(self.command, self.path, "drop")
        if dropped is not None:
            self._before_the_cut(dropped.after_bytes)
            raise ConnectionCutError
        fault = faults.take(self.command, self.path, "status")
        if fault is not None:
            self._refuse(fault.status, fault.code, fault.message, fault.headers)
            return
        path = urlsplit(self.path).path
        for pattern, name in _ROUTES:
            found = pattern.fullmatch(path)
            if found:
                self._check_access(**found.groupdict())
                getattr(self, f"_{name}")(**found.groupdict())
                return
        raise RefusedError(404, "NAME_UNKNOWN", f"nothing is at {path}")

    def _before_the_cut(self, size: int) -> None:
        """Take in `size` bytes of the body; those of a PATCH count as received, as in a real registry."""
        upload = urlsplit(self.path).path.rpartition("/")[2]
        for piece in self._body(size):
            if self.command == "PATCH":
                self.registry.store.upload(upload).extend(piece)

    def _check_access(self, name: str = "", **_: str) -> None:
        if self.path.partition("?")[0].endswith("/token"):
            return
        auth = self.registry.auth
        action = "pull" if self.command in _READING and "/uploads/" not in self.path else "push"
        wanted = [(name, action), *((source, "pull") for source in self._query().get("from", []))]
        for repository, needed in wanted:
            authorization = self.headers.get("Authorization")
            if not auth.allows(authorization, repository, needed):
                if authorization and auth.refuses_with != 401:  # noqa: PLR2004 - Unauthorized
                    raise RefusedError(auth.refuses_with, "DENIED", "Your authorization token has expired.")
                scheme = self.registry.base_url.partition("://")[0]
                host = self.headers.get("Host", self.registry.host)  # a proxy may lead here by other names
                headers = {"WWW-Authenticate": auth.challenge(f"{scheme}://{host}", repository, needed)}
                raise RefusedError(401, "UNAUTHORIZED", "authentication required", headers)
        if name and not self.registry.has_repository(name):
            raise RefusedError(404, "NAME_UNKNOWN", f"The repository with name '{name}' does not exist in the registry")

    # One method for each route.

    def _root(self) -> None:
        self._reply(200, b"{}", {"Content-Type": "application/json"})

    def _token(self) -> None:
        text = b"".join(self._body()).decode() if self.command == "POST" else urlsplit(self.path).query
        status, answer = self.registry.auth.issue(self.headers.get("Authorization"), form_fields(text))
        self._reply(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _manifest(self, name: str, reference: str) -> None:
        store = self.registry.store
        if self.command == "PUT":
            media_type = self.headers.get("Content-Type", "")
            if self.registry.is_immutable(name, reference) and reference in store.repository(name).tags:
                raise RefusedError(400, "TAG_INVALID", f"The image tag '{reference}' already exists, and is immutable.")
            put = store.put_manifest(name, reference, media_type, b"".join(self._body()))
            self._reply(201, b"", {"Location": self.path, "Docker-Content-Digest": put.digest})
            return
        digest, manifest = store.manifest(name, reference)
        self._reply(200, manifest.data, {"Content-Type": manifest.media_type, "Docker-Content-Digest": digest})

    def _tags(self, name: str) -> None:
        tags = sorted(self.registry.store.repository(name).tags)
        self._reply(200, json.dumps({"name": name, "tags": tags}).encode(), {"Content-Type": "application/json"})

    def _blob(self, name: str, digest: str) -> None:
        data = self.registry.store.blob(name, digest)
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None or not self.registry.serves_ranges:
            self._reply(200, data, headers)
            return
        start = int(wanted[1])
        if start >= len(data):
            raise RefusedError(416, "RANGE_INVALID", "past the end")
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._reply(206, data[start:], {**headers, "Content-Range": content_range})

    def _uploads(self, name: str) -> None:
        query, store = self._query(), self.registry.store
        digest, source = query.get("mount", [""])[0], query.get("from", [""])[0]
        if digest and source and self.registry.mounts and store.mount(name, digest, source):
            self._reply(201, b"", {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
            return
        self._accepted(name, store.start_upload())

    def _upload(self, name: str, upload: str) -> None:
        received = self.registry.store.upload(upload)
        if self.command == "DELETE":
            self.registry.store.end_upload(upload)
            self._reply(204, b"")
        elif self.command == "GET":
            self._accepted(name, upload, 204)
        elif self.command == "PATCH":
            self._append(received)
            self._accepted(name, upload)
        else:
            self._finish(name, upload, received)

    def _append(self, received: bytearray) -> None:
        start = self.headers.get("Content-Range", "").partition("-")[0]
        if start and int(start) != len(received):
            raise RefusedError(416, "RANGE_INVALID", f"the next byte is {len(received)}")
        for piece in self._body():
            received.extend(piece)

    def _finish(self, name: str, upload: str, received: bytearray) -> None:
        if self._body_left and self.registry.refuses_monolithic:
            raise RefusedError(self.registry.refuses_monolithic, "UNSUPPORTED", "send it in chunks")
        for piece in self._body():
            received.extend(piece)
        data, digest = self.registry.store.end_upload(upload), self._query().get("digest", [""])[0]
        if sha256_digest(data) != digest:
            raise RefusedError(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.registry.store.put_blob(name, data)
        self._reply(201, b"", {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _accepted(self, name: str, upload: str, status: int = 202) -> None:
        location = f"/v2/{name}/blobs/uploads/{upload}?_state=opaque%3D"
        if self.registry.absolute_locations:
            location = f"{self.registry.base_url}{location}"
        end = len(self.registry.store.upload(upload)) - 1
        headers = {"Location": location, "Docker-Upload-UUID": upload, "Range": f"0-{max(end, 0)}"}
        if self.registry.chunk_min_length:
            headers["OCI-Chunk-Min-Length"] = str(self.registry.chunk_min_length)
        self._reply(status, b"", headers)

    # Bytes in and out.

    def _query(self) -> dict[str, list[str]]:
        return form_fields(urlsplit(self.path).query)

    def _body(self, limit: int | None = None) -> Iterator[bytes]:
        if self._chunks_left:
            yield from self._chunked_body()
            self._chunks_left = False
            return
        stop = 0 if limit is None else max(0, self._body_left - limit)
        while self._body_left > stop:
            piece = self.rfile.read(min(_CHUNK, self._body_left - stop))
            if not piece:
                raise ConnectionCutError
            self._body_left -= len(piece)
            self._record.body_bytes += len(piece)
            yield piece

    def _chunked_body(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            piece = self.rfile.read(size)
            if len(piece) < size:
                raise ConnectionCutError
            self._record.body_bytes += size
            yield piece
            self.rfile.readline()
        self.rfile.readline()

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode() if code else b""
        self._reply(status, body, {"Content-Type": "application/json", **(headers or {})})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        for _ in self._body():  # what was not read would be taken for the next request
            pass
        self._record.status = status
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if status != 204:  # noqa: PLR2004 - No Content has no length
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(body)

    def _send(self, body: bytes) -> None:
        fault = self.registry.faults.take(self.command, self.path, "truncate", "corrupt")
        if fault is not None and fault.kind == "corrupt" and body:
            body = body[:-1] + bytes([body[-1] ^ 0xFF])
        elif fault is not None and fault.kind == "truncate":
            self.wfile.write(body[: fault.after_bytes])
            raise ConnectionCutError
        self.wfile.write(body)
