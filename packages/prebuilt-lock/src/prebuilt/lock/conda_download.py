"""Downloads conda packages through rattler, which knows mirrors, tokens, S3, GCS and OCI channels."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

from prebuilt.core.errors import FetchError, PrebuiltError, without_credentials
from prebuilt.core.url_secrets import remembered_credentials
from prebuilt.lock.conda_client import conda_client
from prebuilt.lock.download import Download, TransientError
from prebuilt.lock.url_credentials import with_credentials

if TYPE_CHECKING:
    from rattler import Client

_STATUS = re.compile(r"HTTP status [a-z ]+\((\d{3})")  # rattler gives an HTTP failure as text only
_STANDSTILL_S = 60.0
_LOOK_S = 0.2
_TRANSIENT = {408, 425, 429}
_CLIENT_ERROR = range(400, 500)


class CondaDownloader:
    """Talks to conda channels. Concurrent calls are fine, each from a thread without an event loop."""

    def __init__(self, authorities: Path | None) -> None:
        """Read rattler's configuration when it is first needed; verify servers with a file of `authorities`, or as the system does."""
        self._authorities = authorities
        self._made: Client | None = None
        self._lock = threading.Lock()

    def attempt(self, download: Download) -> None:
        """Fetch the whole file.

        Raises:
            TransientError: It failed in a way that may pass.
            FetchError: It failed for good.
        """
        import asyncio

        from rattler.package_streaming import download_to_writer

        download.start_over()
        writer = _Writer(download)
        try:
            asyncio.run(
                _watched(download_to_writer(self._client(), _authorized(download.package.url), writer), download)
            )
        except (RuntimeError, OSError) as error:  # what rattler raises for every failure of a download
            if writer.failure is not None:
                raise writer.failure from error
            raise _failure(download, error) from error

    def _client(self) -> Client:
        with self._lock:
            if self._made is None:
                self._made = conda_client(self._authorities, max_retries=0)
            return self._made


async def _watched(transfer: Coroutine[None, None, None], download: Download) -> None:
    """Run `transfer`; give up when it stands still, which rattler would not, or when the work is to stop."""
    import asyncio

    task = asyncio.ensure_future(transfer)
    size_bytes, moved_s = download.size_bytes, time.monotonic()
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
            download.check()
            if download.size_bytes != size_bytes:
                size_bytes, moved_s = download.size_bytes, time.monotonic()
            elif time.monotonic() - moved_s > _STANDSTILL_S:
                raise TransientError(f"nothing came for {_STANDSTILL_S:.0f} s")
        await task
    finally:
        task.cancel()


def _authorized(url: str) -> str:
    """Return `url` with the credentials that its channel was named with; errors that show it are redacted where they are made."""
    credentials = remembered_credentials(url)
    return url if credentials is None else with_credentials(url, credentials)


class _Writer:
    """Passes bytes on, and keeps the error that stopped them: on its way through rattler it would lose its class."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self.failure: PrebuiltError | None = None

    def write(self, data: bytes) -> None:
        try:
            self._download.write(data)
        except PrebuiltError as error:
            self.failure = error
            raise OSError(str(error)) from error


def _failure(download: Download, error: Exception) -> FetchError | TransientError:
    match = _STATUS.search(str(error))
    status = int(match[1]) if match else None
    if status not in _CLIENT_ERROR or status in _TRANSIENT:
        return TransientError(str(error))
    remedy = "give rattler credentials (RATTLER_AUTH_FILE, netrc)" if status in {401, 403} else "check the channel"
    package = download.package
    return FetchError(
        f"download {package.filename}",
        at=without_credentials(package.url),
        reason=f"HTTP status {status}",
        remedy=remedy,
    )
