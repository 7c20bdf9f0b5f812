"""A blob as it comes: checked, and taken up again where it broke off."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import DigestMismatchError, RegistryError, RegistryUnreachableError
from prebuilt.oci.failure import place, unreachable
from prebuilt.oci.session import Session
from prebuilt.oci.transport import Call

_PARTIAL = 206
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")


class BlobDownload:
    """An iterator of the chunks of one blob, the last of which comes only after size and digest were checked.

    Not for more than one thread. :meth:`close` gives the connection back.
    """

    def __init__(self, session: Session, descriptor: Descriptor, open_call: Callable[[int], Call]) -> None:
        """Download with the calls that `open_call` makes: one for the bytes from an offset on. Connects at once."""
        self._session, self._descriptor, self._open_call = session, descriptor, open_call
        self._stack = ExitStack()
        self._hash = hashlib.sha256()
        self._received = 0
        self._chunks = self._connect()

    def close(self) -> None:
        """Stop; the connection is given back, or cut if the blob did not come to its end."""
        self._stack.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yield chunks of at most 1 MiB, as they come: on a slow line nobody waits for more before looking whether to go on.

        Raises:
            RegistryUnreachableError: It broke off too often without a byte more.
            DigestMismatchError: Size or digest are wrong.
        """
        held = b""
        waits_s = self._session.backoff.waits_s()
        while True:
            before = self._received
            broken: Exception | None = None
            try:
                for chunk in self._chunks:
                    self._take(chunk)
                    if held:
                        yield held
                    held = chunk
            except httpx2.TransportError as error:
                broken = error
            if self._received == self._descriptor.size:
                break
            if self._received > before:
                waits_s = self._session.backoff.waits_s()
            wait_s = next(waits_s, None)
            if wait_s is None:
                raise self._broken_off(broken) from broken
            self._stack.close()
            self._session.sleep(wait_s)
            self._chunks = self._connect()
        self._check_digest()
        if held:
            yield held

    def _connect(self) -> Iterator[bytes]:
        """Ask for what is missing; a server that sends all again is listened to from the place that is missing."""
        call = self._open_call(self._received)
        response = self._stack.enter_context(self._session.stream(call))
        start = 0
        if response.status_code == _PARTIAL:
            found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            start = int(found[1]) if found else self._received
        if start > self._received:
            reason = f"asked for the bytes from {self._received} on, it sent those from {start} on"
            raise RegistryError(call.tried, at=place("GET", call.url), reason=reason, status=_PARTIAL)
        # What waits to fill a larger chunk would also be lost with the connection.
        return _from(response.iter_raw(), self._received - start)

    def _take(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self._descriptor.size:
            raise self._mismatch(f"{self._descriptor.size} bytes", f"{self._received} or more")
        self._hash.update(chunk)

    def _check_digest(self) -> None:
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._descriptor.digest:
            raise self._mismatch(self._descriptor.digest, digest)

    def _mismatch(self, expected: str, actual: str) -> DigestMismatchError:
        call = self._open_call(0)
        remedy = "try again; if it happens again, the registry or a proxy before it has damaged data"
        return DigestMismatchError(
            call.tried, at=place("GET", call.url), expected=expected, actual=actual, remedy=remedy
        )

    def _broken_off(self, error: Exception | None) -> RegistryUnreachableError:
        call = self._open_call(0)
        why = f": {unreachable(call.tried, 'GET', call.url, error).reason}" if error else ""
        return RegistryUnreachableError(
            call.tried,
            at=place("GET", call.url),
            reason=f"it broke off after {self._received} of {self._descriptor.size} bytes{why}",
            remedy="try again later",
        )


def _from(chunks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for chunk in chunks:
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        yield chunk[skip:] if skip else chunk
        skip = 0
