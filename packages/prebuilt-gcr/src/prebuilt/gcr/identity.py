"""Who we are to Google, by google-auth: found when first asked, one token for all, replaced before it ends."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.errors import UnauthorizedError
from prebuilt.core.home import home_folder
from prebuilt.core.settings import Settings
from prebuilt.gcr.failure import google_errors
from prebuilt.oci.config import NetworkConfig
from prebuilt.oci.google import LOG_IN

# Source: https://cloud.google.com/artifact-registry/docs/docker/authentication#token
_USERNAME = "oauth2accesstoken"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_FILE_SETTING = "GOOGLE_APPLICATION_CREDENTIALS"
_PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT")
_METADATA_VARIABLES = ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP")
_METADATA_ADDRESS = ("169.254.169.254", 80)
_METADATA_TIMEOUT_S = 1.0
_FLAVOR = "Metadata-Flavor"
_PRODUCT = Path("/sys/class/dmi/id/product_name")

_REPLACED_EARLY = timedelta(minutes=30)
"""A builder that is handed a token, and cannot ask again, has at least this long to push; a token is good for an hour."""

_YOUNG_S = 60.0
"""A token that was fetched so recently was not refused for its age, and another would be refused as well."""


class Identity:
    """Tokens of whoever runs this process. Concurrent calls are fine: one is fetched for all, and kept in memory only."""

    def __init__(self, network: NetworkConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Look for nobody yet."""
        self._network, self._clock = network, clock
        self._lock = threading.RLock()
        self._google: Any = None
        self._found_project: str | None = None
        self._fetched_at_s = 0.0

    def __call__(self, rejected: Credentials | None = None) -> Credentials:
        """Return a token that is good for half an hour; a new one if `rejected` is the current one and age may be why.

        Raises:
            UnauthorizedError: There are no credentials, or they have ended.
            RegistryError: Google refused or could not be asked.
        """
        with self._lock:
            google = self._find(wants_project=False)
            if self._must_go(google, rejected):
                self._refresh(google)
            return Credentials(username=_USERNAME, secret=google.token, expires_at=_ends_at(google))

    def project(self) -> str | None:
        """Return the project of the credentials: as google-auth finds it, else the one that pays for their requests.

        Raises:
            UnauthorizedError: There are no credentials.
        """
        with self._lock:
            google = self._find(wants_project=True)
            return self._found_project or getattr(google, "quota_project_id", None)

    def quota_project(self) -> str | None:
        """Return the project that requests to Google's APIs are counted for; None for that of the resource."""
        with self._lock:
            return getattr(self._find(wants_project=False), "quota_project_id", None)

    def is_there(self) -> bool:
        """Return whether there are credentials."""
        with self._lock:
            return self._google is not None or _has_credentials(os.environ)

    def _find(self, *, wants_project: bool) -> Any:  # noqa: ANN401 - google-auth has no types
        if self._google is None or (wants_project and self._found_project is None):
            tried = "find Google credentials"
            if not _has_credentials(os.environ):
                raise UnauthorizedError(tried, reason="there are none on this machine", remedy=LOG_IN)
            with google_errors(tried, at=_named_file(os.environ)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that quotas of users are shared, for one
                found, project = self._load(wants_project=wants_project)
            self._google, self._found_project = self._google or found, project or self._found_project
        return self._google

    def _load(self, *, wants_project: bool) -> tuple[Any, str | None]:
        import google.auth
        from google.auth.credentials import with_scopes_if_required

        from prebuilt.gcr.http import HTTPRequests

        file = _named_file(os.environ) or str(_users_file(os.environ))
        if not wants_project and Path(file).is_file():
            # google.auth.default would look for the project as well: start gcloud, which takes a second, or ask an API.
            found, project = google.auth.load_credentials_from_file(file)
            return with_scopes_if_required(found, [_SCOPE]), project
        found, project = google.auth.default(scopes=[_SCOPE], request=HTTPRequests(self._network))
        return found, project

    def _must_go(self, google: Any, rejected: Credentials | None) -> bool:  # noqa: ANN401 - as above
        if google.token is None:
            return True
        if self._clock() - self._fetched_at_s < _YOUNG_S:
            return False
        ends_at = _ends_at(google)
        was_rejected = rejected is not None and rejected.secret == google.token
        return was_rejected or (ends_at is not None and ends_at - datetime.now(timezone.utc) < _REPLACED_EARLY)

    def _refresh(self, google: Any) -> None:  # noqa: ANN401 - as above
        from prebuilt.gcr.http import HTTPRequests

        with google_errors("get a token from Google", at=_named_file(os.environ)):
            google.refresh(HTTPRequests(self._network))
        self._fetched_at_s = self._clock()


def _ends_at(google: Any) -> datetime | None:  # noqa: ANN401 - google-auth has no types
    expiry: datetime | None = google.expiry  # in UTC, and does not say so
    return expiry.replace(tzinfo=timezone.utc) if expiry else None


def _users_file(environ: Mapping[str, str]) -> Path:
    """Return where ``gcloud auth application-default login`` leaves credentials.

    Source: https://cloud.google.com/docs/authentication/application-default-credentials#personal
    """
    folder = Path(environ.get("CLOUDSDK_CONFIG") or home_folder(environ) / ".config" / "gcloud")
    return folder / "application_default_credentials.json"


def _named_file(environ: Mapping[str, str]) -> str:
    return environ.get(_FILE_SETTING, "")


def _has_credentials(environ: Mapping[str, str]) -> bool:
    """Return whether google-auth has somewhere to look.

    It would look for a metadata server for ten seconds, which is too long for base images that anybody may pull.
    """
    return bool(_named_file(environ)) or _users_file(environ).is_file() or _has_metadata_server(environ)


def _has_metadata_server(environ: Mapping[str, str]) -> bool:
    if environ.get("NO_GCE_CHECK") == "true":
        return False
    return any(environ.get(name) for name in _METADATA_VARIABLES) or _is_on_google()


@functools.cache
def _is_on_google() -> bool:
    """Look once: on other machines nobody answers, for as long as is waited, or the metadata server of another cloud does.

    Source: https://cloud.google.com/compute/docs/instances/detect-compute-engine
    """
    try:
        with contextlib.closing(http.client.HTTPConnection(*_METADATA_ADDRESS, timeout=_METADATA_TIMEOUT_S)) as server:
            server.request("GET", "/", headers={_FLAVOR: "Google"})
            return server.getresponse().getheader(_FLAVOR) == "Google"
    except (OSError, http.client.HTTPException):
        return _PRODUCT.is_file() and _PRODUCT.read_text(errors="replace").startswith("Google")


@dataclass(frozen=True, slots=True)
class _Key:
    network: NetworkConfig
    variables: tuple[str | None, ...]


_VARIABLES = (_FILE_SETTING, "CLOUDSDK_CONFIG", "HOME", *_PROJECT_VARIABLES, *_METADATA_VARIABLES, "NO_GCE_CHECK")
_identities: dict[_Key, Identity] = {}
_identities_lock = threading.Lock()


def shared_identity(settings: Settings) -> Identity:
    """Return this process's identity, so that the registry and its base images cost one token."""
    key = _Key(NetworkConfig.from_settings(settings), tuple(map(os.environ.get, _VARIABLES)))
    with _identities_lock:
        return _identities.setdefault(key, Identity(key.network))


_: type[CredentialsSource] = Identity
