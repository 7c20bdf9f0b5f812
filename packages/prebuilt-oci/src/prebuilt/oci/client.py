"""A repository in a registry, over HTTP.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO

import httpx2

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.descriptor import Descriptor
from prebuilt.core.errors import DigestMismatchError, ForbiddenError, RegistryError, UnauthorizedError
from prebuilt.core.retry import Backoff, pause
from prebuilt.core.settings import Settings
from prebuilt.oci.download import BlobDownload
from prebuilt.oci.failure import place
from prebuilt.oci.growing_blob import GrowingBlob
from prebuilt.oci.media_types import INDEXES, MANIFESTS
from prebuilt.oci.reference import parse_repository, split_repository
from prebuilt.oci.repository import Advance, Manifest, Repository
from prebuilt.oci.retrying import Sleep, TransientError, with_retries
from prebuilt.oci.session import Session, new_line, shared_line
from prebuilt.oci.streamed_upload import stream_blob
from prebuilt.oci.transport import Answer, Call
from prebuilt.oci.upload import BlobUpload
from prebuilt.oci.upload_session import UploadSession

_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_UPLOADS = "blobs/uploads/"
_THERE = frozenset({200})
_THERE_OR_NOT = frozenset({200, 404})
_NOT_THERE = 404
_CREATED = 201
_ACCEPTED = 202
_MAY_BE_IMMUTABLE = frozenset({400, 409, 412})
"""What registries say to a tag that is there and must not be moved; each has its own opinion about the code in the body."""
_MAY_BE_CONFUSED = frozenset({"DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
"""What distribution 2.8 says of a good manifest while somebody else pushes the same: its files are not written in one step."""
_CONFUSED_ATTEMPTS = 3
_NOT_MOUNTED = frozenset({202, 400, 401, 403, 404, 405})
"""Beside 202, what registries say that know no mounts or do not show us the source: then the blob is copied."""


class RegistryRepository:
    """One repository of a registry. Concurrent calls from threads are fine; connections and tokens are shared."""

    def __init__(
        self,
        name: str,
        *,
        credentials: Credentials | CredentialsSource | None = None,
        settings: Settings | None = None,
        backoff: Backoff | None = None,
        sleep: Sleep = pause,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Open ``host[:port]/repository``; nothing is sent yet.

        Args:
            name: As references have it; Docker Hub's names may be short.
            credentials: In place of what Docker's and Podman's configuration has: fixed ones, or what renews them.
            settings: Those of the process if None.
            backoff: How often to try again.
            sleep: Waits between tries; raises to stop.
            transport: In place of the connections that this process shares.

        Raises:
            InvalidValueError: `name` is not one of a repository in a registry.
            SettingError: A setting about registries is malformed.
        """
        self._name = parse_repository(name)
        self._host, self._path = split_repository(name)
        settings, backoff = settings or Settings.load(), backoff or Backoff()
        line = (
            new_line(self._host, self._path, settings, credentials=credentials, transport=transport)
            if transport
            else shared_line(self._host, self._path, settings, credentials=credentials)
        )
        self._session = Session(line, backoff=backoff, sleep=sleep)

    @property
    def name(self) -> str:
        """``host[:port]/repository`` in full."""
        return self._name

    def resolve(self, reference: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest, or None if it is not there: one HEAD.

        A registry that does not say the digest, its length or its media type is asked for the manifest itself.
        """
        call = self._manifest_call("HEAD", reference)
        answer = self._ask(call)
        if answer is None:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        length = answer.headers.get("Content-Length", "")
        media_type = _media_type(answer.headers.get("Content-Type", ""))
        if not digest.startswith("sha256:") or not length.isdigit() or media_type is None:
            manifest = self.get_manifest(reference)
            return manifest.descriptor if manifest else None
        self._check_digest(call, reference, digest)
        return Descriptor(media_type=media_type, digest=digest, size=int(length))

    def get_manifest(self, reference: str) -> Manifest | None:
        """Return the manifest or index that a tag or digest names, or None if it is not there."""
        call = self._manifest_call("GET", reference)
        answer = self._ask(call)
        if answer is None:
            return None
        digest = _digest_of(answer.body)
        self._check_digest(call, reference, digest)
        said = answer.headers.get("Docker-Content-Digest", "")
        if said.startswith("sha256:"):
            self._check_digest(call, said, digest)
        media_type = _media_type(answer.headers.get("Content-Type", "")) or _declared_media_type(answer)
        if media_type is None:
            raise RegistryError(
                call.tried,
                at=place("GET", call.url),
                reason=f"the answer is {answer.headers.get('Content-Type', 'of no type')!r}, not an image's manifest",
                remedy="check the address: a login page or a proxy may answer there",
                status=answer.status,
            )
        descriptor = Descriptor(media_type=media_type, digest=digest, size=len(answer.body))
        return Manifest(descriptor=descriptor, data=answer.body)

    def _ask(self, call: Call) -> Answer | None:
        """Return the answer; None where it is that nothing is there, also from a token service that has no such repository."""
        try:
            answer = self._session.request(call)
        except RegistryError as error:
            if error.status == _NOT_THERE and error.code == "NAME_UNKNOWN":
                return None
            raise
        return None if answer.status == _NOT_THERE else answer

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> Descriptor:
        """Store a manifest under a tag or its digest; its blobs must be there already.

        Where tags cannot be moved, a tag that has the very manifest already is as good as one that was put.
        """
        descriptor = Descriptor(media_type=media_type, digest=_digest_of(data), size=len(data))
        call = self._call(
            "PUT",
            f"manifests/{reference}",
            f"push manifest {reference}",
            frozenset({200, 201, 202}),
            push=True,
            headers={"Content-Type": media_type, "Content-Length": str(len(data))},
            body=lambda: iter((data,)),
        )
        self._check_digest(call, reference, descriptor.digest)
        try:
            answer = with_retries(
                lambda: self._store(call),
                backoff=replace(self._session.backoff, attempts=_CONFUSED_ATTEMPTS),
                sleep=self._session.sleep,
            )
        except RegistryError as refusal:
            if refusal.status in _MAY_BE_IMMUTABLE and self._serves(reference, descriptor):
                return descriptor
            raise
        stored = answer.headers.get("Docker-Content-Digest", "")
        if stored.startswith("sha256:"):
            self._check_digest(call, descriptor.digest, stored)
        return descriptor

    def _store(self, call: Call) -> Answer:
        try:
            return self._session.request(call)
        except RegistryError as error:
            if error.code in _MAY_BE_CONFUSED:
                raise TransientError(error) from error
            raise

    def _serves(self, reference: str, descriptor: Descriptor) -> bool:
        try:
            served = self.resolve(reference)
        except RegistryError:  # why the manifest was refused says more
            return False
        return served is not None and served.digest == descriptor.digest

    def has_blob(self, digest: str) -> bool:
        """Return whether the blob is there: one HEAD."""
        call = self._call("HEAD", f"blobs/{digest}", f"look for blob {digest}", _THERE_OR_NOT)
        return self._session.request(call).status != _NOT_THERE

    @contextlib.contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Give the blob as chunks of at most 1 MiB, the last one only after size and digest were checked."""

        def call(offset: int) -> Call:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            url = f"blobs/{descriptor.digest}"
            return self._call("GET", url, f"pull blob {descriptor.digest}", frozenset({200, 206}), headers=headers)

        download = BlobDownload(self._session, descriptor, call)
        try:
            yield iter(download)
        finally:
            download.close()

    def push_blob(
        self, descriptor: Descriptor, source: Callable[[], BinaryIO], advance: Advance = lambda _: None
    ) -> None:
        """Store a blob unless it is there. `source` opens its bytes from the start; it is called again for each retry."""
        if self.has_blob(descriptor.digest):
            advance(descriptor.size)
            return
        BlobUpload(
            self._session,
            self._url(_UPLOADS),
            self._scopes(push=True),
            descriptor,
            source=source,
            advance=advance,
        ).run()

    def push_growing_blob(self, blob: GrowingBlob, check: Callable[[], None] = lambda: None) -> None:
        """Store a blob while it is written: in one PATCH without a length, as `docker push` does, or else once it is whole."""
        if not stream_blob(blob, self._session, self._url(_UPLOADS), self._scopes(push=True), check):
            self.push_blob(blob.wait_for_all(), blob.open, lambda _: check())

    def mount_blob(self, descriptor: Descriptor, source: str) -> bool:
        """Link a blob from the repository called `source` if that is in the same registry; return whether it is here now."""
        source = parse_repository(source)
        host, _, path = source.partition("/")
        if host != self._host:
            return False
        call = self._call(
            "POST",
            f"{_UPLOADS}?mount={descriptor.digest}&from={path}",
            f"mount blob {descriptor.digest} from {source}",
            _NOT_MOUNTED | {_CREATED},
            push=True,
            headers={"Content-Length": "0"},
            scopes=frozenset({f"repository:{path}:pull"}),
        )
        try:
            answer = self._session.request(call)
        except (UnauthorizedError, ForbiddenError):  # the token service's: no token for the source
            return False
        if answer.status == _ACCEPTED and answer.headers.get("Location"):  # an upload in place of a mount
            UploadSession(self._session, answer, call.tried, self._scopes(push=True)).cancel()
        return answer.status == _CREATED

    def _manifest_call(self, method: str, reference: str) -> Call:
        verb = "resolve" if method == "HEAD" else "get the manifest of"
        what = f"{verb} {self._name}{'@' if reference.startswith('sha256:') else ':'}{reference}"
        return self._call(method, f"manifests/{reference}", what, _THERE_OR_NOT, headers={"Accept": _ACCEPT})

    def _call(
        self,
        method: str,
        path: str,
        tried: str,
        wanted: frozenset[int],
        *,
        push: bool = False,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        scopes: frozenset[str] = frozenset(),
    ) -> Call:
        return Call(
            method=method,
            url=self._url(path),
            tried=tried,
            wanted=wanted,
            scopes=self._scopes(push=push) | scopes,
            headers=headers or {},
            body=body,
        )

    def _url(self, path: str) -> str:
        return f"{self._session.base_url}/v2/{self._path}/{path}"

    def _scopes(self, *, push: bool) -> frozenset[str]:
        actions = ("pull", "push") if push else ("pull",)
        return frozenset(f"repository:{self._path}:{action}" for action in actions)

    @staticmethod
    def _check_digest(call: Call, expected: str, actual: str) -> None:
        """Compare, where `expected` is a digest and not a tag."""
        if expected.startswith("sha256:") and expected != actual:
            raise DigestMismatchError(
                call.tried,
                at=place(call.method, call.url),
                expected=expected,
                actual=actual,
                remedy="try again; if it happens again, the registry or a proxy before it has damaged data",
            )


def _digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _media_type(content_type: str) -> str | None:
    """Return the media type of a manifest that a ``Content-Type`` header names; None if it names something else."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type if media_type in {*MANIFESTS, *INDEXES} else None


def _declared_media_type(answer: Answer) -> str | None:
    """Return the media type that a manifest says of itself: some registries send all as ``application/json``."""
    try:
        data = json.loads(answer.body)
    except ValueError:
        return None
    return _media_type(str(data.get("mediaType"))) if isinstance(data, dict) else None


_: type[Repository] = RegistryRepository
