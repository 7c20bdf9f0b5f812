"""An upload as the registry keeps it: opened by POST, at a place that each answer may change, ended by PUT or DELETE.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from prebuilt.core.errors import RegistryError
from prebuilt.oci.session import Session
from prebuilt.oci.transport import Answer, Body, Call

_COMMIT_TIMEOUT_S = 300.0
"""Registries read a large blob again before they answer."""

_CREATED = 201
_ENDED_OR_NOT = frozenset({200, 202, 204, *range(400, 600)})


class UploadSession:
    """One upload that is open. Not for more than one thread.

    Attributes:
        url: Where the next request goes.
        chunk_min_bytes: The least that the registry takes in a chunk that is not the last; 0 where it does not say.
    """

    def __init__(self, session: Session, answer: Answer, tried: str, scopes: frozenset[str]) -> None:
        """Go on from the answer that opened it.

        Raises:
            RegistryError: It does not say where.
        """
        self._session, self._tried, self._scopes = session, tried, scopes
        self.url = ""
        self.follow(answer)
        if not self.url:
            raise RegistryError(
                tried, at=f"POST {answer.url}", reason="the answer has no Location", status=answer.status
            )
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        self.chunk_min_bytes = int(least) if least.isdigit() else 0

    @classmethod
    def open(cls, session: Session, uploads_url: str, tried: str, scopes: frozenset[str]) -> UploadSession | None:
        """Open an upload by the repository's ``blobs/uploads/``; None if the registry says that it has the blob by now.

        Raises:
            RegistryError: It refused, or cannot be reached.
        """
        answer = session.request(_call("POST", uploads_url, {201, 202}, tried, scopes))
        return None if answer.status == _CREATED else cls(session, answer, tried, scopes)

    def follow(self, answer: Answer) -> None:
        """Go where the answer says."""
        location = answer.headers.get("Location")
        if location:
            self.url = str(httpx2.URL(answer.url).join(location))

    def call(
        self,
        method: str,
        wanted: set[int],
        *,
        digest: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int | None = 0,
    ) -> Call:
        """Return a request to where the upload is now.

        Args:
            method: GET asks how far it is, PATCH and PUT bring bytes.
            wanted: Statuses that are no failure.
            digest: Of the blob, which ends the upload.
            headers: Beside those that say what the body is.
            body: The bytes.
            size: How many they are; None where nobody knows yet.
        """
        url = f"{self.url}{_query(self.url, digest)}" if digest else self.url
        return _call(method, url, wanted, self._tried, self._scopes, headers=headers, body=body, size=size)

    def cancel(self) -> None:
        """End the upload; one that cannot be ended expires by itself.

        Raises:
            RegistryError: The registry cannot be reached.
        """
        self._session.request(_call("DELETE", self.url, _ENDED_OR_NOT, "cancel an upload", self._scopes, size=None))


def _query(url: str, digest: str) -> str:
    # By text: the rest of the query is the registry's own and must stay as it is.
    return f"{'&' if '?' in url else '?'}digest={digest.replace(':', '%3A')}"


def _call(
    method: str,
    url: str,
    wanted: set[int] | frozenset[int],
    tried: str,
    scopes: frozenset[str],
    *,
    headers: Mapping[str, str] | None = None,
    body: Body | None = None,
    size: int | None = 0,
) -> Call:
    length = {} if method == "GET" or size is None else {"Content-Length": str(size)}
    kind = {"Content-Type": "application/octet-stream"} if body else {}
    return Call(
        method=method,
        url=url,
        tried=tried,
        wanted=frozenset(wanted),
        scopes=scopes,
        headers={**length, **kind, **(headers or {})},
        body=body,
        read_timeout_s=_COMMIT_TIMEOUT_S,
    )
