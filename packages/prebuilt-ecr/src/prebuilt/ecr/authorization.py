"""The password of the moment: fetched when it is first needed, kept in this process, replaced before it expires."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.ecr.api import Authorization

_REPLACED_EARLY = timedelta(hours=3)
"""A builder that is handed a password, and cannot ask again, has at least this long: more than the two hours that Docker, buildx and
Kaniko may take for an image unless they are given more."""

_YOUNG_S = 60.0
"""A password that was fetched so recently was not refused for its age, and another would be refused as well."""


class AuthorizationSource:
    """Passwords for one registry, one at a time. Concurrent calls are fine: one is fetched for all.

    They are kept in memory only. A file would save later processes some 100 ms each, and leave a secret on the disk that opens every
    repository of the account for 12 hours.
    """

    def __init__(self, fetch: Callable[[], Authorization], clock: Callable[[], float] = time.monotonic) -> None:
        """Fetch with `fetch`."""
        self._fetch, self._clock = fetch, clock
        self._lock = threading.Lock()
        self._current: Authorization | None = None
        self._fetched_at_s = 0.0

    def __call__(self, rejected: Credentials | None = None) -> Credentials:
        """Return the password; a new one if `rejected` is the current one and age may be why.

        Raises:
            RegistryError: AWS refused or could not be asked.
        """
        return self._get(rejected).credentials

    @property
    def account(self) -> str:
        """The account of whoever asks."""
        return self._get(None).account

    def _get(self, rejected: Credentials | None) -> Authorization:
        with self._lock:
            if self._current is None or self._must_go(self._current.credentials, rejected):
                self._current, self._fetched_at_s = self._fetch(), self._clock()
            return self._current

    def _must_go(self, credentials: Credentials, rejected: Credentials | None) -> bool:
        if self._clock() - self._fetched_at_s < _YOUNG_S:
            return False
        ends_at = credentials.expires_at
        return credentials == rejected or (
            ends_at is not None and ends_at - datetime.now(timezone.utc) < _REPLACED_EARLY
        )


_: type[CredentialsSource] = AuthorizationSource
