"""Which packages travel in the build context: those that a build machine could not fetch as this user can."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from prebuilt.core.dockerfile import proxy_arguments
from prebuilt.core.lock import CondaPackage, LockedPackage
from prebuilt.core.loopback import is_loopback
from prebuilt.core.settings import Settings
from prebuilt.core.url_secrets import remembered_credentials
from prebuilt.lock.index_config import IndexConfig
from prebuilt.lock.url_credentials import from_netrc

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True, kw_only=True)
class TravelRules:
    """Says which packages travel. Concurrent calls are fine.

    Attributes:
        settings: ``METAFLOW_PREBUILT_SEND_PACKAGES`` sends all of them.
        index_config: How this user reaches package indexes.
    """

    settings: Settings
    index_config: IndexConfig
    _answers: dict[tuple[str, str], bool] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def travels(self, package: LockedPackage) -> bool:
        """Return whether `package` is downloaded here and sent along."""
        if self._sends_all:
            return True
        parts = urlsplit(package.url)
        if parts.scheme not in {"http", "https"} or is_loopback(parts.hostname or ""):
            return True
        with self._lock:  # a keyring is asked for each host once
            key = (package.kind, f"{parts.scheme}://{parts.netloc}")
            if key not in self._answers:
                is_conda = isinstance(package, CondaPackage)
                self._answers[key] = self._conda.is_ours(package.url) if is_conda else self._is_ours(package.url)
            return self._answers[key]

    @cached_property
    def _sends_all(self) -> bool:
        return self.settings.flag("PREBUILT_SEND_PACKAGES", default=False) or self._has_local_proxy

    @property
    def _has_local_proxy(self) -> bool:
        """Whether this machine reaches others by a proxy of its own, which build machines do not."""
        environ = self.settings.environ
        names = {name for upper in _PROXIES for name in (upper, upper.lower()) if environ.get(name)}
        return not names <= proxy_arguments(environ).keys()

    def _is_ours(self, url: str) -> bool:
        config = self.index_config
        return (
            config.proxy is not None
            or config.client_cert is not None
            or config.is_insecure(url)
            or config.credentials_for(url) is not None
        )

    @cached_property
    def _conda(self) -> CondaAccess:
        return CondaAccess.load(self.settings.environ, self.index_config.home)


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaAccess:
    """How this user reaches channels, as far as rattler tells.

    What rattler keeps in the system's keyring cannot be listed: for that there is ``METAFLOW_PREBUILT_SEND_PACKAGES``.

    Attributes:
        hosts: With credentials; ``*.host`` stands for all below it.
        mirrored: URLs, the beginnings of others, that are fetched from somewhere else.
        is_special: Whether every host is reached in a way of this machine: by a proxy, or without regard to certificates.
    """

    hosts: frozenset[str]
    mirrored: tuple[str, ...]
    is_special: bool
    environ: Mapping[str, str] = field(repr=False)
    home: Path

    @classmethod
    def load(cls, environ: Mapping[str, str], home: Path) -> CondaAccess:
        """Read rattler's configuration and its files of credentials.

        Raises:
            SettingError: The configuration is malformed.
        """
        from prebuilt.lock.conda_client import authentication_files, conda_config

        config = conda_config()
        return cls(
            hosts=frozenset(host for path in authentication_files(config, environ, home) for host in _hosts(path)),
            mirrored=tuple(config.mirrors),
            is_special=bool(config.proxy_http or config.proxy_https or config.tls_no_verify),
            environ=environ,
            home=home,
        )

    def is_ours(self, url: str) -> bool:
        """Return whether `url` is reached by this user in a way that others do not have."""
        host = urlsplit(url).hostname or ""
        return (
            self.is_special
            or url.startswith(self.mirrored)
            or any(_is_below(host, known) for known in self.hosts)
            or remembered_credentials(url) is not None
            or from_netrc(host, self.environ, self.home) is not None
        )


def _is_below(host: str, known: str) -> bool:
    return host == known or (known.startswith("*.") and f".{host}".endswith(known[1:]))


def _hosts(path: Path) -> Iterator[str]:
    """Yield the hosts that a file of rattler's credentials names, with or without a scheme."""
    from prebuilt.lock.conda_client import read_authentication

    for name in read_authentication(path):
        yield urlsplit(name if "//" in name else f"//{name}").netloc.rpartition("@")[2].partition(":")[0]
