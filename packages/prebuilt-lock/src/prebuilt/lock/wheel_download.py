"""Downloads wheels from package indexes."""

from __future__ import annotations

import re
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from prebuilt.core.errors import FetchError, without_credentials
from prebuilt.core.retry import parse_retry_after
from prebuilt.lock.download import Download, TransientError
from prebuilt.lock.index_client import index_client
from prebuilt.lock.index_config import IndexConfig

if TYPE_CHECKING:
    import httpx2

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class WheelDownloader:
    """Talks to package indexes. Concurrent calls are fine; connections are shared."""

    def __init__(self, config: IndexConfig) -> None:
        """Use the credentials and certificates of `config`."""
        self._config = config
        self._clients: dict[bool, httpx2.Client] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def attempt(self, download: Download) -> None:
        """Fetch what is missing of the file, if the server can send a part, else all of it.

        Raises:
            TransientError: It failed in a way that may pass.
            FetchError: It failed for good.
            SettingError: There is no going through the proxy.
        """
        import httpx2

        url = download.package.url
        credentials = self._config.credentials_for(url)
        auth = httpx2.BasicAuth(credentials.username, credentials.secret) if credentials else None
        headers = {"Range": f"bytes={download.size_bytes}-"} if download.size_bytes else {}
        try:
            with self._client(url).stream("GET", without_credentials(url), headers=headers, auth=auth) as answer:
                self._receive(answer, download)
        except (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
            raise _failure(download, str(error), "check the URL") from error
        except httpx2.HTTPError as error:
            raise TransientError(str(error) or type(error).__name__) from error

    def _receive(self, answer: httpx2.Response, download: Download) -> None:
        status = answer.status_code
        if status in _TRANSIENT:
            wait_s = parse_retry_after(answer.headers.get("Retry-After"))
            raise TransientError(f"HTTP status {status}", retry_after_s=wait_s)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            download.start_over()
            raise TransientError(f"HTTP status {status}")
        if not answer.is_success:
            remedy = (
                "give credentials in the index URL, netrc or a keyring" if status in {401, 403} else "check the URL"
            )
            raise _failure(download, f"HTTP status {status}", remedy)
        if download.size_bytes and not _continues(answer, download.size_bytes):
            download.start_over()
        for (
            chunk
        ) in answer.iter_raw():  # as it comes: what waits to fill a larger chunk would be lost with the connection
            download.write(chunk)
        if download.size_bytes < download.package.size_bytes and "Content-Length" not in answer.headers:
            raise TransientError("the connection ended early")

    def _client(self, url: str) -> httpx2.Client:
        insecure = self._config.is_insecure(url)
        with self._lock:
            if insecure not in self._clients:
                self._clients[insecure] = index_client(self._config, is_insecure=insecure)
            return self._clients[insecure]


def _continues(answer: httpx2.Response, offset: int) -> bool:
    """Return whether the answer goes on where the download stopped.

    Source: RFC 9110, section 14.4
    """
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return answer.status_code == HTTPStatus.PARTIAL_CONTENT and match is not None and int(match[1]) == offset


def _failure(download: Download, reason: str, remedy: str) -> FetchError:
    package = download.package
    return FetchError(f"download {package.filename}", at=without_credentials(package.url), reason=reason, remedy=remedy)
