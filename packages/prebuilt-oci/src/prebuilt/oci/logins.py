"""Who we are to one repository: what the caller gave, else a login of Docker or Podman, else what a cloud's package has."""

from __future__ import annotations

from dataclasses import dataclass, field

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.settings import Settings
from prebuilt.oci.cloud_logins import find_source
from prebuilt.oci.docker_config import Login, find_login


@dataclass(slots=True)
class Logins:
    """Logins for one repository. An :class:`~prebuilt.oci.auth.Authenticator` makes its calls one at a time."""

    host: str
    repository: str
    settings: Settings
    given: Credentials | CredentialsSource | None
    _source: CredentialsSource | None = field(default=None, init=False)

    def find(self) -> Login | None:
        """Return the login to begin with; None to be anonymous."""
        if isinstance(self.given, Credentials):
            return Login.explicit(self.given)
        if self.given is None:
            found = find_login(self.host, self.repository, self.settings.environ)
            if found is not None:
                return found
        self._source = self.given or find_source(self.host, self.settings)
        return Login.explicit(self._source()) if self._source else None

    def renew(self, rejected: Credentials) -> Credentials | None:
        """Return others than `rejected`; the same, or None, if there are none.

        Credentials that a caller gave with their end have come from the package of a cloud, which can give others.
        """
        if isinstance(self.given, Credentials) and self.given.expires_at is not None:
            self._source = self._source or find_source(self.host, self.settings)
        return self._source(rejected) if self._source else None
