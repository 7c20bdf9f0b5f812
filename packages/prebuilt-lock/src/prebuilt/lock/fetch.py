"""The files of locked packages, on this machine and verified."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, final
from urllib.parse import unquote, urlsplit

from prebuilt.core.errors import DigestMismatchError, FetchError, without_credentials
from prebuilt.core.lock import CondaPackage, LockedPackage, Wheel
from prebuilt.core.retry import LONGEST_WAIT_S, Backoff, pause
from prebuilt.core.settings import Settings
from prebuilt.core.storage import remove_abandoned, storage_errors
from prebuilt.lock.conda_download import CondaDownloader
from prebuilt.lock.download import Advance, Check, Download, TransientError, digest_mismatch
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.wheel_download import WheelDownloader
from prebuilt.lock.wheelhouse import WheelHouse

DOWNLOADS = "downloads"
"""Of the cache folder: what is on its way, of files and of folders of builds."""

_CHUNK_BYTES = 1 << 20


class Downloader(Protocol):
    """One way to fetch packages. Concurrent calls are fine."""

    def attempt(self, download: Download) -> None:
        """Fetch what is missing of the file.

        Raises:
            TransientError: It failed in a way that may pass.
            FetchError: It failed for good.
        """


@final
class PackageFiles:
    """Gives package files, from the network or from where they lie. Concurrent calls are fine.

    Files are removed after use, since a package that was baked once is not needed again;
    ``METAFLOW_PREBUILT_KEEP_DOWNLOADS=1`` keeps them.
    """

    def __init__(
        self,
        settings: Settings,
        index_config: IndexConfig,
        cache_dir: Path,
        *,
        backoff: Backoff | None = None,
        brought: Path | None = None,
        folder: Path | None = None,
        downloader: Downloader | None = None,
    ) -> None:
        """Keep files below `cache_dir`, and reach indexes by `index_config`.

        Args:
            settings: Say whether files are kept.
            index_config: Credentials for wheels, certificate authorities for all packages.
            cache_dir: May not exist yet.
            backoff: How often and when to try again.
            brought: Folder of files that came along, as ``<sha256>/<file>``; they are used wherever the lock says they are.
            folder: Of files on their way, on the same disk as `cache_dir`; one below that, which is everybody's, if None.
            downloader: Of all packages, in place of those that know this user's indexes, channels and credentials.

        Raises:
            SettingError: A setting is malformed.
        """
        self._wheels = WheelDownloader(index_config)
        self._wheel_downloader: Downloader = downloader or self._wheels
        self._conda_downloader: Downloader = downloader or CondaDownloader(index_config.ca_bundle)
        self._brought = brought
        self._wheelhouse = WheelHouse(cache_dir / "wheels")
        self._downloads, self._kept = cache_dir / DOWNLOADS, cache_dir / "packages"
        self._folder = folder or self._downloads
        self._keep = settings.flag("PREBUILT_KEEP_DOWNLOADS", default=False)
        self._backoff = backoff or Backoff()
        self._swept = threading.Lock()

    def __enter__(self) -> PackageFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._wheels.close()

    @contextlib.contextmanager
    def get(
        self, package: LockedPackage, *, advance: Advance = lambda _: None, check: Check = lambda: None
    ) -> Iterator[Path]:
        """Give the file of `package`, which is what the lock says: size and SHA-256 were checked.

        Args:
            package: Of a lock.
            advance: Told the bytes that have come; in all, the package's size.
            check: Called now and then; raises to stop.

        Raises:
            FetchError: It could not be downloaded, also after trying again, or is not on this machine where it should be.
            DigestMismatchError: It is not what was locked.
            StorageError: The disk is full or not writable.
        """
        local = self._local(package)
        if local is not None:
            _verify(local, package, advance, check)
            yield local
            return
        kept = self._kept / package.sha256 / package.filename
        if kept.is_file() and _is_intact(kept, package, advance, check):
            yield kept
            return
        self._sweep()
        with Download(package, self._folder, advance=advance, check=check) as download:
            self._fetch(download, check)
            download.verify()
            if self._keep:
                download.keep(kept)
            yield download.path

    def _local(self, package: LockedPackage) -> Path | None:
        """Return where the file lies by its nature, or since it came along; None if it is somewhere else."""
        if self._brought is not None and (brought := self._brought / package.sha256 / package.filename).is_file():
            return brought
        if not package.url and isinstance(package, Wheel):
            path = self._wheelhouse.path(package.sha256, package.filename)
            if path is None:
                raise FetchError(
                    f"find {package.filename}",
                    reason="it was built, or lay, on the machine that resolved the requirements, and is neither on this one nor kept"
                    " beside the lock",
                    remedy="resolve again here, with METAFLOW_PREBUILT_REFRESH=1",
                )
            return path
        parts = urlsplit(package.url)
        if parts.scheme == "file":
            return Path(unquote(parts.path))
        return None

    def _fetch(self, download: Download, check: Check) -> None:
        package = download.package
        downloader = self._conda_downloader if isinstance(package, CondaPackage) else self._wheel_downloader
        waits_s = self._backoff.waits_s()
        while True:
            check()
            try:
                downloader.attempt(download)
            except TransientError as error:
                wait_s, asked_s = next(waits_s, None), error.retry_after_s or 0.0
                if wait_s is None:
                    reason = f"{error} ({self._backoff.attempts} attempts)"
                    raise _given_up(package, reason, "check the network and the proxy") from error
                if asked_s > LONGEST_WAIT_S:
                    reason = f"{error}, and the server wants to be left alone for {asked_s:.0f} s"
                    raise _given_up(package, reason, "try again later") from error
                pause(max(wait_s, asked_s), check)
            else:
                return

    def _sweep(self) -> None:
        """Remove, once, what killed processes left behind long ago."""
        if self._swept.acquire(blocking=False):
            remove_abandoned(self._downloads)


def _given_up(package: LockedPackage, reason: str, remedy: str) -> FetchError:
    return FetchError(f"download {package.filename}", at=without_credentials(package.url), reason=reason, remedy=remedy)


def _verify(path: Path, package: LockedPackage, advance: Advance, check: Check) -> None:
    digest = hashlib.sha256()
    with storage_errors(f"read {package.filename}", path), path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            check()
            digest.update(chunk)
            advance(len(chunk))
    if digest.hexdigest() != package.sha256:
        raise digest_mismatch(package, expected=f"sha256:{package.sha256}", actual=f"sha256:{digest.hexdigest()}")


def _is_intact(path: Path, package: LockedPackage, advance: Advance, check: Check) -> bool:
    """Return whether a kept file is still what it was; a damaged one is downloaded again."""
    try:
        _verify(path, package, lambda _: None, check)
    except DigestMismatchError:
        return False
    advance(package.size_bytes)
    return True
