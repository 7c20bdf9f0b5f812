"""What an index does not say about a file, found out; and the download of source that is to be built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prebuilt.core.errors import DigestMismatchError, FetchError, without_credentials
from prebuilt.core.retry import Backoff, pause
from prebuilt.core.storage import atomic_file
from prebuilt.lock.download import Check
from prebuilt.lock.index_client import index_client
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.pylock import DistFile

if TYPE_CHECKING:
    import httpx2

_TOO_MANY, _SERVER_FAILURE = 429, 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFiles:
    """Files of package indexes. Concurrent calls are fine. `check` is called now and then, and raises to stop.

    Raises:
        FetchError: From every method: the file could not be had.
        DigestMismatchError: From every method: it is not what the index says.
        SettingError: From every method: there is no going through the proxy.
    """

    config: IndexConfig
    backoff: Backoff = field(default_factory=lambda: Backoff(attempts=4))
    check: Check = lambda: None

    def measure(self, file: DistFile) -> DistFile:
        """Return `file` with its hash and size: as the index states them, else asked for, else by reading it."""
        if file.sha256 is not None and file.size_bytes is None:
            file = replace(file, size_bytes=self._attempt(_length, file))
        if file.sha256 is not None and file.size_bytes:
            return file
        sha256, size_bytes = self._attempt(_pour, file, self._checking(lambda _: None))
        return replace(_checked(file, sha256), sha256=sha256, size_bytes=size_bytes)

    def download(self, file: DistFile, folder: Path) -> Path:
        """Write the file into `folder` and return its path. Its hash is checked where the index states one."""

        def save(client: httpx2.Client, file: DistFile) -> None:
            with atomic_file(path) as target:
                _checked(file, _pour(client, file, self._checking(target.write))[0])

        path = folder / file.filename
        self._attempt(save, file)
        return path

    def _attempt(self, do: Callable[..., T], file: DistFile, *more: object) -> T:
        """Do `do` with a client for the file's host; again where a failure may pass."""
        import httpx2

        waits = self.backoff.waits_s()
        while True:
            self.check()
            try:
                with self._client(file.url) as client:
                    return do(client, file, *more)
            except httpx2.HTTPError as error:
                wait_s = next(waits, None) if _may_pass(error) else None
                if wait_s is None:
                    raise _failure(file, error) from error
                pause(wait_s, self.check)

    def _checking(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def checked(data: bytes) -> None:
            self.check()
            write(data)

        return checked

    def _client(self, url: str) -> httpx2.Client:
        is_insecure, credentials = self.config.is_insecure(url), self.config.credentials_for(url)
        return index_client(self.config, is_insecure=is_insecure, credentials=credentials)


def _length(client: httpx2.Client, file: DistFile) -> int | None:
    """Ask for the size; None where the server does not say."""
    answer = client.head(file.url)
    length = answer.headers.get("Content-Length", "")
    return int(length) if answer.is_success and length.isdigit() else None


def _pour(client: httpx2.Client, file: DistFile, write: Callable[[bytes], object]) -> tuple[str, int]:
    """Read the file into `write`; return its hash and size."""
    digest, size_bytes = hashlib.sha256(), 0
    with client.stream("GET", file.url) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            digest.update(chunk)
            size_bytes += len(chunk)
            write(chunk)
    return digest.hexdigest(), size_bytes


def _checked(file: DistFile, sha256: str) -> DistFile:
    if file.sha256 not in {None, sha256}:
        raise DigestMismatchError(
            f"download {file.filename}",
            at=without_credentials(file.url),
            expected=f"sha256:{file.sha256}",
            actual=f"sha256:{sha256}",
            remedy="the index serves something else than it announces: ask its owner",
        )
    return file


def _may_pass(error: httpx2.HTTPError) -> bool:
    import httpx2

    if isinstance(error, httpx2.HTTPStatusError):
        return error.response.status_code == _TOO_MANY or error.response.status_code >= _SERVER_FAILURE
    return isinstance(error, httpx2.TransportError)


def _failure(file: DistFile, error: httpx2.HTTPError) -> FetchError:
    import httpx2

    place = without_credentials(file.url)
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        remedy = "give credentials in the index URL, netrc or a keyring" if status in {401, 403} else "check the URL"
        return FetchError(f"download {file.filename}", at=place, reason=f"HTTP status {status}", remedy=remedy)
    return FetchError(
        f"download {file.filename}",
        at=place,
        reason=str(error) or type(error).__name__,
        remedy="check the network and the proxy",
    )
