"""Who we are to a repository: what the caller gave, else a login of Docker or Podman, else what a cloud's package has."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.errors import PrebuiltError
from prebuilt.core.settings import Settings
from prebuilt.oci.cloud_logins import find_source
from prebuilt.oci.docker_config import (
    Login,
    find_docker_login,
    find_login,
    find_podman_login,
    find_variable_login,
)
from prebuilt.oci.reference import split_repository

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Logins:
    """Logins for one repository. An :class:`~prebuilt.oci.auth.Authenticator` makes its calls one at a time."""

    host: str
    repository: str
    settings: Settings
    given: Credentials | CredentialsSource | None
    _source: CredentialsSource | None = field(default=None, init=False)
    _found: Login | None = field(default=None, init=False)

    def find(self) -> Login | None:
        """Return the login to begin with, which can be renewed; None to be anonymous."""
        if self.given is None:
            self._found = find_login(self.host, self.repository, self.settings.environ)
            if self._found is not None:
                return self._found
        return self._explicit()

    def find_lasting(self) -> Login | None:
        """Return the login for a builder, which cannot renew it; None to be anonymous."""
        found = self.find()
        return found and self._lasting(found)

    def find_beyond_docker(self) -> Login | None:
        """Return the login for a ``docker``, which cannot renew it; None where each has it, in its file, or to be anonymous."""
        if self.given is None:
            here = (self.host, self.repository, self.settings.environ)
            found = find_variable_login(*here)  # which commands before 28.3 do not know, nor does the SDK
            if found is not None:
                return self._lasting(found)
            found = find_docker_login(*here)
            if found is not None:
                lasting = self._lasting(found)
                return None if lasting is found else lasting
            found = find_podman_login(*here)
            if found is not None:
                return self._lasting(found)
        return self._explicit()

    def renew(self, rejected: Credentials) -> Credentials | None:
        """Return others than `rejected`; the same, or None, if there are none.

        Credentials that a caller gave with their end have come from the package of a cloud, which can give others; so it can
        for a password of the cloud that ``docker login`` kept.
        """
        if self._found is not None and self._found.may_have_ended:
            return self._of_cloud(rejected)
        if isinstance(self.given, Credentials) and self.given.expires_at is not None:
            self._source = self._source or find_source(self.host, self.settings)
        return self._source(rejected) if self._source else None

    def _lasting(self, found: Login) -> Login:
        """Return `found`, or, if that may have ended, what the cloud gives now."""
        credentials = self._of_cloud() if found.may_have_ended else None
        return Login.explicit(credentials) if credentials else found

    def _of_cloud(self, rejected: Credentials | None = None) -> Credentials | None:
        """Return what the package of a cloud gives; None where it gives nothing, and the login that was found has to do."""
        self._source = self._source or find_source(self.host, self.settings)
        try:
            return self._source(rejected) if self._source else None
        except PrebuiltError:  # who has a login need have nothing else: the registry's answer to it is what is told
            _LOG.debug("the login that was found could not be renewed", exc_info=True)
            return None

    def _explicit(self) -> Login | None:
        """Return the login that was given, or that the package of a cloud has."""
        if isinstance(self.given, Credentials):
            return Login.explicit(self.given)
        self._source = self.given or find_source(self.host, self.settings)
        return Login.explicit(self._source()) if self._source else None


def find_logins(
    repositories: Iterable[str],
    settings: Settings,
    *,
    given: Mapping[str, Credentials] | None = None,
    beyond_docker: bool = False,
) -> dict[str, Login]:
    """Return the logins for the registries of some repositories by ``host[:port]``; those that are anonymous are left out.

    They are handed over, and last: what a cloud's package gives now stands before a password of that cloud which was kept, and may
    have ended.

    Args:
        repositories: In full: ``docker.io/library/python``. Of those in one registry the first counts.
        settings: Where logins are found.
        given: Credentials by host, in place of what would be found.
        beyond_docker: Leave out, too, what is in Docker's file: every ``docker`` reads that itself.

    Raises:
        RegistryError: A cloud refused to give credentials, or a credential helper failed.
        SettingError: A file with logins cannot be read.
    """
    found: dict[str, Login | None] = {}
    for repository in repositories:
        host, path = split_repository(repository)
        if host not in found:
            logins = Logins(host, path, settings, (given or {}).get(host))
            found[host] = logins.find_beyond_docker() if beyond_docker else logins.find_lasting()
    return {host: login for host, login in found.items() if login is not None}
