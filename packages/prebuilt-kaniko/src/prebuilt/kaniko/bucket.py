"""A bucket in which a context waits for its pod: Google Cloud Storage or S3. The SDKs are extras of this package."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from prebuilt.core.errors import BuildError, EngineError
from prebuilt.kaniko.config import BUCKET_SETTING
from prebuilt.oci.amazon_failure import AmazonFailure, amazon_failures

_DENIED = {401, 403}
_ABSENT = 404
_NO_BUCKET = "there is no such bucket", f"create it, or set {BUCKET_SETTING} to another one"
_PART_BYTES = 8 << 20  # google-cloud-storage sends 100 MB at a time by itself, and holds them in memory
_REGION_SETTING = "AWS_DEFAULT_REGION"
_PAGE = "docs/how-to/kaniko.md"


class Bucket(Protocol):
    """Where one context is put, and whence it is removed."""

    def put(self, key: str, path: Path, check: Callable[[], None]) -> str:
        """Upload a file; return its URL as Kaniko's ``--context`` takes it. `check` is called meanwhile, and raises to stop."""

    def delete(self, key: str) -> None:
        """Remove what was put; nothing happens where it is not there."""


def open_bucket(url: str) -> Bucket:
    """Return the bucket of ``gs://bucket/folder`` or ``s3://bucket/folder``; nothing is asked of it yet.

    Raises:
        BuildError: The configuration of the SDK cannot be read.
        EngineError: The SDK is not installed.
        SettingError: The profile or the region of the SDK is not there.
    """
    parts = urlsplit(url)
    bucket, folder = parts.netloc, parts.path.strip("/")
    return AmazonBucket(bucket, folder) if parts.scheme == "s3" else GoogleBucket(bucket, folder)


class AmazonBucket:
    """A bucket of S3, with boto3's credentials."""

    def __init__(self, bucket: str, folder: str) -> None:
        """Keep objects below `folder`."""
        boto3 = _sdk("boto3", "s3")
        self._bucket, self._folder = bucket, folder
        with self._errors("read the AWS configuration", ""):
            # A session of its own: boto3's default one is not for several threads.
            self._client: Any = boto3.session.Session().client("s3")

    def put(self, key: str, path: Path, check: Callable[[], None]) -> str:
        """Upload in parts where the file is large."""
        name = _joined(self._folder, key)
        try:
            with self._errors("upload a build context", "s3:PutObject"), path.open("rb") as file:
                self._client.upload_fileobj(file, self._bucket, name, Callback=lambda _: check())
        except BuildError:
            check()  # what was raised inside of a request may come out as a connection that was cut
            raise
        return f"s3://{self._bucket}/{name}"

    def delete(self, key: str) -> None:
        """Remove the object."""
        with self._errors("delete a build context", "s3:DeleteObject"):
            self._client.delete_object(Bucket=self._bucket, Key=_joined(self._folder, key))

    def _errors(self, tried: str, action: str) -> AbstractContextManager[None]:
        def to_error(failure: AmazonFailure) -> BuildError:
            reason, remedy = failure.reason, failure.remedy
            if failure.kind == "missing":
                reason, remedy = _NO_BUCKET
            elif failure.kind == "elsewhere":
                remedy = f"set {_REGION_SETTING} to the region of the bucket"
            return BuildError(tried, at=f"s3://{self._bucket}", reason=reason, remedy=remedy)

        return amazon_failures(to_error, action=action, region_setting=_REGION_SETTING, page=_PAGE)


class GoogleBucket:
    """A bucket of Google Cloud Storage, with application default credentials."""

    def __init__(self, bucket: str, folder: str) -> None:
        """Keep objects below `folder`."""
        self._storage = _sdk("google.cloud.storage", "gcs")
        self._bucket, self._folder = bucket, folder

    def put(self, key: str, path: Path, check: Callable[[], None]) -> str:
        """Upload in parts where the file is large; a cut connection is tried again."""
        name = _joined(self._folder, key)

        def upload(blob: Any) -> None:  # noqa: ANN401 - the client library has no types
            blob.chunk_size = _PART_BYTES
            with _CheckedFile(path, check) as file:
                blob.upload_from_file(file, size=path.stat().st_size)

        # A failed upload may have left its object: one more of the same bytes under this key does no harm.
        self._do("upload a build context", "storage.objects.create", name, upload)
        return f"gs://{self._bucket}/{name}"

    def delete(self, key: str) -> None:
        """Remove the object."""
        from google.api_core.exceptions import NotFound

        try:
            self._do(
                "delete a build context",
                "storage.objects.delete",
                _joined(self._folder, key),
                lambda blob: blob.delete(),
            )
        except BuildError as error:
            if not isinstance(error.__cause__, NotFound):
                raise

    def _do(self, tried: str, permission: str, name: str, work: Callable[[Any], None]) -> None:
        import requests
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        try:
            client = self._storage.Client(project=None)  # not that of the environment: objects need none
            try:
                work(client.bucket(self._bucket).blob(name))
            finally:
                client.close()
        except (GoogleAPIError, GoogleAuthError, requests.RequestException, OSError) as error:
            raise _google_failure(tried, f"gs://{self._bucket}", permission, error) from error


class _CheckedFile(io.FileIO):
    """A file that may be read for as long as nobody stops it."""

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        super().__init__(path)
        self._check = check

    def read(self, size: int | None = -1) -> bytes:
        """Read on, unless `check` raises."""
        self._check()
        return super().read(size)


def _joined(folder: str, key: str) -> str:
    return f"{folder}/{key}" if folder else key


def _sdk(module: str, extra: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EngineError(
            f"use {BUCKET_SETTING}",
            reason=f"{module} is not installed",
            remedy=f"pip install 'prebuilt-kaniko[{extra}]'",
        ) from error


def _google_failure(tried: str, at: str, permission: str, error: Exception) -> BuildError:
    status = getattr(error, "code", None)
    reason, remedy = str(error), "see whether this machine is logged in to Google Cloud"
    if status == _ABSENT:
        reason, remedy = _NO_BUCKET
    elif status in _DENIED:
        reason, remedy = f"access is denied ({error})", f"grant {permission} on it to whoever deploys"
    return BuildError(tried, at=at, reason=reason, remedy=remedy)
