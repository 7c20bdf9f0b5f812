"""Uploading one blob: in one request, or in chunks that can be taken up again; each where the registry refuses the other.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import httpx2

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import RegistryError, StorageError
from prebuilt.oci.amazon import is_ecr
from prebuilt.oci.repository import Advance
from prebuilt.oci.retrying import TransientError, with_retries
from prebuilt.oci.session import Session
from prebuilt.oci.transport import Answer, Body, Call

MONOLITHIC_LIMIT_BYTES = 4 << 30
"""Larger blobs go in chunks: many stores behind registries take no more than 5 GB at a time, and a connection that breaks then
costs a chunk. Not sooner: some registries (Google's, for one) take one chunk at most, and all take a whole blob."""
CHUNK_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
"""What is read and sent at a time."""

_COMMIT_TIMEOUT_S = 300.0
"""Registries read a large blob again before they answer."""

_REFUSES_THE_WAY = frozenset({405, 411, 413, 415, 416, 501})
_REFUSES_THE_WAY_CODES = frozenset({"UNSUPPORTED", "SIZE_INVALID", "BLOB_UPLOAD_INVALID", "RANGE_INVALID"})
_SESSION_GONE = 404
_RANGE_INVALID = 416
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


@dataclass(slots=True)
class _Place:
    """Where the next request of an upload goes, and how large its chunks must be."""

    url: str
    chunk_bytes: int

    def follow(self, answer: Answer) -> None:
        """Go where the answer says: each may name another place."""
        location = answer.headers.get("Location")
        if location:
            self.url = str(httpx2.URL(answer.url).join(location))


class BlobUpload:
    """One blob on its way to one repository."""

    def __init__(
        self,
        session: Session,
        uploads_url: str,
        scopes: frozenset[str],
        descriptor: Descriptor,
        *,
        source: Callable[[], BinaryIO],
        advance: Advance,
    ) -> None:
        """Upload what `source` opens, by way of the repository's ``blobs/uploads/`` at `uploads_url`."""
        self._session, self._uploads_url, self._scopes = session, uploads_url, scopes
        self._descriptor, self._source, self._advance = descriptor, source, advance
        self._tried = f"push blob {descriptor.digest}"
        self._told = 0
        # Amazon takes blobs of any size whole, and of several chunks it keeps the first.
        # Source: https://github.com/aws/containers-roadmap/issues/2831
        is_whole = is_ecr(httpx2.URL(uploads_url).host)
        self._in_chunks = descriptor.size > MONOLITHIC_LIMIT_BYTES and not is_whole
        self._has_tried_both = is_whole

    def run(self) -> None:
        """Upload; begin anew where an upload is lost.

        Raises:
            RegistryError: The registry refused, or broke off too often.
            StorageError: `source` does not give the bytes that the descriptor promises.
        """
        with_retries(self._run_once, backoff=self._session.backoff, sleep=self._session.sleep)
        self._tell(self._descriptor.size)

    def _run_once(self) -> None:
        place = self._start()
        if place is None:
            return
        try:
            if self._in_chunks:
                self._send_chunks(place)
            else:
                self._send_whole(place)
        except RegistryError as error:
            if error.status == _SESSION_GONE:  # the upload was forgotten; a new one may go through
                raise TransientError(error) from error
            if self._has_tried_both or not _refuses_the_way(error):
                raise
            self._in_chunks, self._has_tried_both = not self._in_chunks, True
            raise TransientError(error, retry_after_s=0.0) from error

    def _start(self) -> _Place | None:
        """Open an upload; None if the registry says that it has the blob by now."""
        answer = self._session.request(self._call("POST", self._uploads_url, {201, 202}))
        if answer.status == 201:  # noqa: PLR2004 - Created
            return None
        place = _Place(self._uploads_url, CHUNK_BYTES)
        place.follow(answer)
        if place.url == self._uploads_url:
            raise RegistryError(
                self._tried, at=f"POST {place.url}", reason="the answer has no Location", status=answer.status
            )
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        place.chunk_bytes = max(CHUNK_BYTES, int(least) if least.isdigit() else 0)
        return place

    def _send_whole(self, place: _Place) -> None:
        size = self._descriptor.size
        call = self._call("PUT", self._commit_url(place), {201, 204}, body=lambda: self._pieces(0, size), size=size)
        self._session.request_once(call)

    def _send_chunks(self, place: _Place) -> None:
        offset, size = 0, self._descriptor.size
        while offset < size:
            sent = self._send_chunk_and_resume(place, offset, min(size, offset + place.chunk_bytes))
            if sent > size:
                raise RegistryError(self._tried, at=f"PATCH {place.url}", reason=f"it has {sent} bytes of {size}")
            offset = sent
        self._session.request(self._call("PUT", self._commit_url(place), {201, 204}))

    def _send_chunk_and_resume(self, place: _Place, start: int, stop: int) -> int:
        """Send the bytes from `start` to `stop`, and what is missing of them if it breaks off; return what has arrived."""
        at = start

        def attempt() -> int:
            nonlocal at
            try:
                return self._send_chunk(place, at, stop)
            except (TransientError, RegistryError) as error:
                if isinstance(error, RegistryError) and error.status != _RANGE_INVALID:
                    raise
                at = self._received(place)
                if at >= stop:
                    return at
                raise error if isinstance(error, TransientError) else TransientError(error) from error

        return with_retries(attempt, backoff=self._session.backoff, sleep=self._session.sleep)

    def _send_chunk(self, place: _Place, start: int, stop: int) -> int:
        headers = {"Content-Range": f"{start}-{stop - 1}"}
        call = self._call(
            "PATCH",
            place.url,
            {201, 202, 204},
            headers=headers,
            body=lambda: self._pieces(start, stop),
            size=stop - start,
        )
        place.follow(self._session.request_once(call))
        return stop

    def _received(self, place: _Place) -> int:
        """Ask how many bytes have arrived."""
        answer = self._session.request(self._call("GET", place.url, {204, 202}))
        place.follow(answer)
        found = _RANGE.fullmatch(answer.headers.get("Range", ""))
        if found is None:
            return 0
        return int(found[1]) + 1 if int(found[1]) else 0  # 0-0 is what registries say when nothing has arrived

    def _commit_url(self, place: _Place) -> str:
        # By text: the rest of the query is the registry's own and must stay as it is.
        separator = "&" if "?" in place.url else "?"
        return f"{place.url}{separator}digest={self._descriptor.digest.replace(':', '%3A')}"

    def _call(
        self,
        method: str,
        url: str,
        wanted: set[int],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int = 0,
    ) -> Call:
        length = {"Content-Length": str(size)} if method != "GET" else {}
        kind = {"Content-Type": "application/octet-stream"} if body else {}
        return Call(
            method=method,
            url=url,
            tried=self._tried,
            wanted=frozenset(wanted),
            scopes=self._scopes,
            headers={**length, **kind, **(headers or {})},
            body=body,
            read_timeout_s=_COMMIT_TIMEOUT_S,
        )

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the source's bytes from `start` to `stop`; its end must be where the descriptor says."""
        with self._source() as file:
            _skip(file, start)
            at = start
            while at < stop:
                piece = file.read(min(PIECE_BYTES, stop - at))
                if not piece:
                    raise self._wrong_size(f"only {at}")
                at += len(piece)
                if at == self._descriptor.size and file.read(1):
                    raise self._wrong_size("more")
                yield piece
                self._tell(at)

    def _wrong_size(self, found: str) -> StorageError:
        return StorageError(
            self._tried,
            reason=f"it should have {self._descriptor.size} bytes, and its source has {found}",
            remedy="remove it from the cache and try again",
        )

    def _tell(self, sent: int) -> None:
        """Report bytes once, also where they are sent twice."""
        if sent > self._told:
            self._advance(sent - self._told)
            self._told = sent


def _refuses_the_way(error: RegistryError) -> bool:
    """Return whether a refusal may be of the way in which the blob came, rather than of the blob."""
    return error.status in _REFUSES_THE_WAY or error.code in _REFUSES_THE_WAY_CODES


def _skip(file: BinaryIO, size: int) -> None:
    if not size:
        return
    if file.seekable():
        file.seek(size)
        return
    while size > 0 and (piece := file.read(min(PIECE_BYTES, size))):
        size -= len(piece)
