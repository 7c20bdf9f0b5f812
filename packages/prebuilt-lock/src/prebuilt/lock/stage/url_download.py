"""Downloads by the standard library alone: of packages, and of what other ways to download would need themselves."""

from __future__ import annotations

import re
import ssl
import urllib.request
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.error import HTTPError, URLError

from prebuilt.core.errors import FetchError, SettingError, without_credentials
from prebuilt.core.retry import parse_retry_after
from prebuilt.lock.download import Download, TransientError

if TYPE_CHECKING:
    from prebuilt.lock.fetch import Downloader

_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 17
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {401, 403, 407}
_SEND = "set METAFLOW_PREBUILT_SEND_PACKAGES=1 where you deploy: packages are then sent from there"


class UrlDownloader:
    """Fetches http and https URLs, by way of the proxies that the environment names. Concurrent calls are fine."""

    def __init__(self, certificates: Path | None) -> None:
        """Trust what OpenSSL does, and the authorities in `certificates`.

        Raises:
            SettingError: `certificates` holds none.
        """
        trust = ssl.create_default_context()
        if certificates is not None:
            try:
                trust.load_verify_locations(certificates)
            except OSError as error:  # ssl.SSLError is one
                raise SettingError(
                    "METAFLOW_PREBUILT_CA_BUNDLE, SSL_CERT_FILE (pip: cert)",
                    at=str(certificates),
                    reason=str(error),
                    remedy="name a PEM file where you deploy",
                ) from error
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust))

    def attempt(self, download: Download) -> None:
        """Fetch what is missing of the file, if the server can send a part, else all of it.

        Raises:
            TransientError: It failed in a way that may pass.
            FetchError: It failed for good.
        """
        headers = {"User-Agent": "metaflow-prebuilt", "Accept-Encoding": "identity"}
        if download.size_bytes:
            headers["Range"] = f"bytes={download.size_bytes}-"
        try:
            request = urllib.request.Request(download.package.url, headers=headers)  # noqa: S310 - of the lock
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                _receive(cast("HTTPResponse", answer), download)
        except HTTPError as error:
            with error:
                raise _refusal(error, download) from error
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise _failure(error, download) from error


def _receive(answer: HTTPResponse, download: Download) -> None:
    offset = download.size_bytes
    if offset and not (
        answer.status == HTTPStatus.PARTIAL_CONTENT
        and re.match(rf"bytes {offset}-", answer.headers.get("Content-Range", ""))
    ):
        download.start_over()
    while chunk := answer.read1(_CHUNK_BYTES):  # as it comes: see WheelDownloader
        download.write(chunk)
    if download.size_bytes < download.package.size_bytes:
        raise TransientError("the connection ended early")


def _refusal(error: HTTPError, download: Download) -> TransientError | FetchError:
    reason = f"HTTP status {error.code}"
    if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        download.start_over()
    elif error.code not in _TRANSIENT:
        return _for_good(download, reason, _SEND if error.code in _REFUSED else "check the URL")
    return TransientError(reason, retry_after_s=parse_retry_after(error.headers.get("Retry-After")))


def _failure(error: Exception, download: Download) -> TransientError | FetchError:
    cause = error.reason if isinstance(error, URLError) else error
    reason = str(cause) or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        remedy = "name your certificate authorities with METAFLOW_PREBUILT_CA_BUNDLE where you deploy"
        return _for_good(download, reason, remedy)
    if isinstance(error, ValueError):
        return _for_good(download, reason, "check the URL")
    return TransientError(reason)


def _for_good(download: Download, reason: str, remedy: str) -> FetchError:
    package = download.package
    return FetchError(f"download {package.filename}", at=without_credentials(package.url), reason=reason, remedy=remedy)


if TYPE_CHECKING:
    _: type[Downloader] = UrlDownloader
