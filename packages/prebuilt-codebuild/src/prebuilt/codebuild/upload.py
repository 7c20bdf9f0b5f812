"""Contexts in S3: there while a build runs, gone after it, whatever happened."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prebuilt.codebuild.context_zip import ContextZip
from prebuilt.codebuild.failure import aws_errors
from prebuilt.core.build_service import Cancellation
from prebuilt.core.errors import PrebuiltError
from prebuilt.core.progress import ImageProgress

_LOG = logging.getLogger(__name__)
_PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
_CHECKSUM = "CRC32"
# What completes an upload says of each part; the second where it was answered.
_PART_NAMES = ("ETag", f"Checksum{_CHECKSUM}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextStore:
    """The bucket of build contexts.

    Attributes:
        s3: A client.
        bucket: Its name.
        prefix: What keys begin with.
    """

    s3: Any
    bucket: str
    prefix: str

    @contextlib.contextmanager
    def holding(self, archive: ContextZip, progress: ImageProgress, cancellation: Cancellation) -> Iterator[str]:
        """Give the key of `archive` in the bucket for the time of the body, then delete it.

        The key names the content, and is never given twice: builds with the same context do not share it, so that the one that
        ends first does not take it from the other.

        Raises:
            AmazonError: It could not be uploaded.
            CancelledError: The work was cancelled.
            StorageError: A file changed while it was read.
        """
        key = f"{self.prefix}/{archive.content_id}-{uuid.uuid4()}.zip"
        is_there = False
        try:
            self._put(key, archive, progress, cancellation)
            is_there = True
            yield key
        finally:  # also after a failed upload, whose last answer may have been lost; but then its error says enough
            self._delete(key, progress if is_there else None)

    def _put(self, key: str, archive: ContextZip, progress: ImageProgress, cancellation: Cancellation) -> None:
        size_bytes = archive.size_bytes
        part_bytes = max(_PART_BYTES, -(-size_bytes // _MAX_PARTS))
        progress.add_total(size_bytes)
        with aws_errors("upload a build context", at=self._at, action="s3:PutObject"):
            if size_bytes <= part_bytes:
                cancellation.check()
                self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"".join(archive.chunks()))
                progress.advance(size_bytes)
            else:
                self._put_in_parts(key, _in_parts(archive.chunks(), part_bytes), progress, cancellation)

    def _put_in_parts(
        self, key: str, parts: Iterator[bytes], progress: ImageProgress, cancellation: Cancellation
    ) -> None:
        place = {"Bucket": self.bucket, "Key": key}
        place["UploadId"] = self.s3.create_multipart_upload(**place, ChecksumAlgorithm=_CHECKSUM)["UploadId"]
        try:
            sent = []
            for number, part in enumerate(parts, start=1):
                cancellation.check()
                answer = self.s3.upload_part(**place, PartNumber=number, Body=part, ChecksumAlgorithm=_CHECKSUM)
                sent.append({"PartNumber": number, **{name: answer[name] for name in _PART_NAMES if name in answer}})
                progress.advance(len(part))
            self.s3.complete_multipart_upload(**place, MultipartUpload={"Parts": sent})
        except BaseException:
            self._abort(place, progress)
            raise

    def _abort(self, place: dict[str, str], progress: ImageProgress) -> None:
        """Give up an upload. That this failed does not hide why it had to be given up."""
        try:
            with aws_errors("give up an upload", at=self._at, action="s3:AbortMultipartUpload"):
                self.s3.abort_multipart_upload(**place)
        except PrebuiltError as error:
            _LOG.debug("an upload was not given up", exc_info=True)
            progress.note(f"parts of an upload stay in the bucket until its lifecycle rule removes them: {error}")

    def _delete(self, key: str, progress: ImageProgress | None) -> None:
        """Delete a context. The image does not depend on it, so a failure is a note."""
        try:
            with aws_errors("delete a build context", at=f"s3://{self.bucket}/{key}", action="s3:DeleteObject"):
                self.s3.delete_object(Bucket=self.bucket, Key=key)
        except PrebuiltError as error:
            _LOG.debug("a context was not deleted", exc_info=True)
            if progress is not None:
                progress.note(f"a build context stays in the bucket until its lifecycle rule removes it: {error}")

    @property
    def _at(self) -> str:
        return f"s3://{self.bucket}"


def _in_parts(chunks: Iterable[bytes], part_bytes: int) -> Iterator[bytes]:
    """Yield the same bytes in parts of one size, the last one excepted: S3 refuses parts below 5 MiB."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= part_bytes:
            yield bytes(held[:part_bytes])
            del held[:part_bytes]
    if held:
        yield bytes(held)
