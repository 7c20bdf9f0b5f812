"""Uploading one blob: in one request, or in chunks that can be taken up again; each where the registry refuses the other.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import httpx2

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import RegistryError, StorageError
from prebuilt.oci.amazon import LAYER_LIMIT_MIB, LAYER_LIMIT_REMEDY, is_ecr
from prebuilt.oci.repository import Advance
from prebuilt.oci.retrying import TransientError, with_retries
from prebuilt.oci.session import Session
from prebuilt.oci.transport import Answer
from prebuilt.oci.upload_session import UploadSession

MONOLITHIC_LIMIT_BYTES = 4 << 30
"""Larger blobs go in chunks: many stores behind registries take no more than 5 GB at a time, and a connection that breaks then
costs a chunk. Not sooner: some registries (Google's, for one) take one chunk at most, and all take a whole blob."""
CHUNK_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
"""What is read and sent at a time."""

_REFUSES_THE_WAY = frozenset({405, 411, 413, 415, 416, 501})
_REFUSES_THE_WAY_CODES = frozenset({"UNSUPPORTED", "SIZE_INVALID", "BLOB_UPLOAD_INVALID", "RANGE_INVALID"})
_SESSION_GONE = 404
_RANGE_INVALID = 416
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


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
        self._is_ecr = is_whole = is_ecr(httpx2.URL(uploads_url).host)
        self._in_chunks = descriptor.size > MONOLITHIC_LIMIT_BYTES and not is_whole
        self._has_tried_both = is_whole

    def run(self) -> None:
        """Upload; begin anew where an upload is lost.

        Raises:
            RegistryError: The registry refused, or broke off too often.
            StorageError: `source` does not give the bytes that the descriptor promises.
        """
        self._check_size()
        with_retries(self._run_once, backoff=self._session.backoff, sleep=self._session.sleep)
        self._tell(self._descriptor.size)

    def _check_size(self) -> None:
        """Refuse what Amazon would refuse when it has been sent, an hour later."""
        size = self._descriptor.size
        if self._is_ecr and size > LAYER_LIMIT_MIB << 20:
            reason = f"it has {-(-size // (1 << 20)):,} MiB"
            raise RegistryError(self._tried, at=self._uploads_url, reason=reason, remedy=LAYER_LIMIT_REMEDY)

    def _run_once(self) -> None:
        upload = UploadSession.open(self._session, self._uploads_url, self._tried, self._scopes)
        if upload is None:
            return
        try:
            if self._in_chunks:
                self._send_chunks(upload)
            else:
                self._send_whole(upload)
        except RegistryError as error:
            if error.status == _SESSION_GONE:  # the upload was forgotten; a new one may go through
                raise TransientError(error) from error
            if self._has_tried_both or not _refuses_the_way(error):
                raise
            self._in_chunks, self._has_tried_both = not self._in_chunks, True
            raise TransientError(error, retry_after_s=0.0) from error

    def _send_whole(self, upload: UploadSession) -> None:
        digest, size = self._descriptor.digest, self._descriptor.size
        self._session.request_once(
            upload.call("PUT", {201, 204}, digest=digest, body=lambda: self._pieces(0, size), size=size)
        )

    def _send_chunks(self, upload: UploadSession) -> None:
        offset, size = 0, self._descriptor.size
        chunk_bytes = max(CHUNK_BYTES, upload.chunk_min_bytes)
        while offset < size:
            sent = self._send_chunk_and_resume(upload, offset, min(size, offset + chunk_bytes))
            if sent > size:
                raise RegistryError(self._tried, at=f"PATCH {upload.url}", reason=f"it has {sent} bytes of {size}")
            offset = sent
        self._session.request(upload.call("PUT", {201, 204}, digest=self._descriptor.digest))

    def _send_chunk_and_resume(self, upload: UploadSession, start: int, stop: int) -> int:
        """Send the bytes from `start` to `stop`, and what is missing of them if it breaks off; return what has arrived."""
        at = start

        def attempt() -> int:
            nonlocal at
            try:
                return self._send_chunk(upload, at, stop)
            except (TransientError, RegistryError) as error:
                if isinstance(error, RegistryError) and error.status != _RANGE_INVALID:
                    raise
                at = self._received(upload)
                if at >= stop:
                    return at
                raise error if isinstance(error, TransientError) else TransientError(error) from error

        return with_retries(attempt, backoff=self._session.backoff, sleep=self._session.sleep)

    def _send_chunk(self, upload: UploadSession, start: int, stop: int) -> int:
        call = upload.call(
            "PATCH",
            {201, 202, 204},
            headers={"Content-Range": f"{start}-{stop - 1}"},
            body=lambda: self._pieces(start, stop),
            size=stop - start,
        )
        upload.follow(self._session.request_once(call))
        return stop

    def _received(self, upload: UploadSession) -> int:
        """Ask how many bytes have arrived."""
        answer = self._session.request(upload.call("GET", {204, 202}))
        upload.follow(answer)
        return received_bytes(answer)

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


def received_bytes(answer: Answer) -> int:
    """Return how many bytes an upload has, by what the registry says of it; 0 where it does not."""
    found = _RANGE.fullmatch(answer.headers.get("Range", ""))
    if found is None:
        return 0
    return int(found[1]) + 1 if int(found[1]) else 0  # 0-0 is what registries say when nothing has arrived


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
