"""Uploading a blob while it is written: the line is in use from its first bytes on, and not only after its last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import RegistryError
from prebuilt.oci.growing_blob import GrowingBlob
from prebuilt.oci.retrying import TransientError
from prebuilt.oci.session import Session
from prebuilt.oci.upload import received_bytes
from prebuilt.oci.upload_session import UploadSession

_TRIED = "push a blob while it is written"

_log = logging.getLogger(__name__)


def stream_blob(
    blob: GrowingBlob, session: Session, uploads_url: str, scopes: frozenset[str], check: Callable[[], None]
) -> bool:
    """Upload `blob` as it grows; return whether it is there now.

    Nothing is tried twice here: where it breaks off, or a registry wants to know the length first, the blob is to be pushed
    once it is whole.

    Raises:
        RegistryError: The registry takes no uploads from us, so that the rest need not be written.
        CancelledError: The blob will not be finished.
    """
    blob.wait_for_some()
    upload = UploadSession.open(session, uploads_url, _TRIED, scopes)
    if upload is None:
        return False
    try:
        _send(blob, session, upload, check)
    except (TransientError, RegistryError) as error:
        _log.info("pushing once it is whole: %s", error)
        return False
    return True


def _send(blob: GrowingBlob, session: Session, upload: UploadSession, check: Callable[[], None]) -> None:
    body = lambda: _checked(blob, check)  # noqa: E731 - opened anew for each time that it is sent
    answer = session.request_once(upload.call("PATCH", {201, 202, 204}, body=body, size=None))
    upload.follow(answer)
    descriptor = blob.wait_for_all()
    _check_length(descriptor, received_bytes(answer), upload)
    session.request_once(upload.call("PUT", {201, 204}, digest=descriptor.digest))


def _checked(blob: GrowingBlob, check: Callable[[], None]) -> Iterator[bytes]:
    for piece in blob.pieces():
        check()
        yield piece


def _check_length(descriptor: Descriptor, received: int, upload: UploadSession) -> None:
    if received not in {0, descriptor.size}:
        reason = f"it has {received} of {descriptor.size} bytes"
        raise RegistryError(_TRIED, at=f"PATCH {upload.url}", reason=reason)
