"""Where wheels come from and with whose credentials: the user's own pip and uv configuration, for uv and for downloads."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import SettingError, without_credentials
from prebuilt.core.home import home_folder
from prebuilt.core.settings import Settings
from prebuilt.core.url_secrets import credentials_in, remembered_credentials
from prebuilt.lock.authorities import Authorities
from prebuilt.lock.pip_config import PipConfig
from prebuilt.lock.url_credentials import from_keyring, from_netrc
from prebuilt.lock.uv_config import UvConfig

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexConfig:
    """Where wheels come from.

    uv's own configuration has more authority than pip's.

    Attributes:
        indexes: What uv is told to use, default one first, with credentials; empty: uv's own configuration decides.
        known: Every index that is configured anywhere, with credentials: those of a URL below one of them are found here.
        find_links: Folders, or pages with links, that are searched beside the indexes.
        no_index: Whether only `find_links` are searched.
        ca_bundle: File of trusted certificates; None for the default ones.
        named_authorities: What it was made of, without the system's.
        client_cert: File with certificate and key that servers ask for.
        insecure_hosts: Hosts (``host`` or ``host:port``) that need no valid certificate.
        keyring: Whether the ``keyring`` command is asked.
        proxy: URL of the proxy that pip is told to use; None: what the environment says.
    """

    indexes: tuple[str, ...] = field(default=(), repr=False)
    known: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    no_index: bool = False
    ca_bundle: Path | None = None
    named_authorities: tuple[Path, ...] = ()
    client_cert: Path | None = None
    insecure_hosts: tuple[str, ...] = ()
    keyring: bool = False
    proxy: str | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    home: Path = field(default_factory=lambda: home_folder(os.environ), repr=False)

    @classmethod
    def load(cls, settings: Settings, *, folder: Path | None = None) -> IndexConfig:
        """Read pip's and uv's configuration.

        Args:
            settings: ``METAFLOW_PREBUILT_CA_BUNDLE``, and the environment that pip's and uv's variables are read from.
            folder: Where uv's project configuration is looked for; the working folder, unless given.

        Raises:
            SettingError: A configuration file is malformed, or there are no authorities where the setting says.
            StorageError: The authorities could not be written into the cache.
        """
        environ = dict(settings.environ)
        home = home_folder(environ)
        pip = PipConfig.load(environ, home)
        uv = UvConfig.load(environ, home, folder or Path.cwd())
        of_pip = (*([pip.get("index-url") or ""]), *pip.words("extra-index-url"))
        known = tuple(url for url in (*uv.indexes, *of_pip) if url)
        authorities = Authorities.load(settings, pip.get("cert"))
        by_pip = not uv.names_indexes
        return cls(
            indexes=of_pip if by_pip and any(of_pip) else (),
            known=known,
            find_links=_places(pip.words("find-links"), home) if by_pip else uv.find_links,
            no_index=by_pip and pip.flag("no-index"),
            ca_bundle=authorities.file(),
            named_authorities=authorities.named,
            client_cert=_file(environ.get("SSL_CLIENT_CERT") or pip.get("client-cert")),
            insecure_hosts=(*uv.insecure_hosts, *pip.words("trusted-host")),
            keyring=_uses_keyring(uv.keyring, pip.get("keyring-provider")),
            proxy=None if any(environ.get(name) for name in _PROXY_VARIABLES) else pip.get("proxy"),
            environ=environ,
            home=home,
        )

    def uv_environment(self, *, find_links: Sequence[Path] = ()) -> dict[str, str]:
        """Return the whole environment for a uv process. URLs with credentials travel here, where no process list shows them.

        Args:
            find_links: Folders to search besides.
        """
        environ = {name: value for name, value in self.environ.items() if name != "VIRTUAL_ENV"}
        default, extra = (self.indexes[0], self.indexes[1:]) if self.indexes else ("", ())
        ours = {
            "UV_DEFAULT_INDEX": default,
            "UV_INDEX": " ".join(extra),
            "UV_FIND_LINKS": ",".join([*map(str, find_links), *self.find_links]),
            "UV_KEYRING_PROVIDER": "subprocess" if self.keyring else "",
            "UV_INSECURE_HOST": " ".join(self.insecure_hosts),
            "SSL_CERT_FILE": str(self.ca_bundle or ""),
            "SSL_CLIENT_CERT": str(self.client_cert or ""),
            "ALL_PROXY": self.proxy or "",
        }
        if extra and "UV_INDEX_STRATEGY" not in environ:
            ours["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # what pip does with the same configuration
        return {**environ, **{name: value for name, value in ours.items() if value}}

    @property
    def uv_arguments(self) -> list[str]:
        """What has no environment variable."""
        return ["--no-index"] if self.no_index else []

    def credentials_for(self, url: str) -> Credentials | None:
        """Return the credentials for `url`: those it was named with, those of an index on the same host, netrc's, the keyring's; else None.

        Of several indexes on the host, the one that shares the longest path with `url` counts.
        """
        own = credentials_in(url) or remembered_credentials(url)
        if own is not None and own.secret:
            return own
        related = sorted(
            (index for index in (*self.indexes, *self.known) if _origin(index) == _origin(url)),
            key=lambda index: _shared_segments(index, url),
            reverse=True,
        )
        named = [found for found in map(credentials_in, related) if found is not None]
        with_secret = next((found for found in named if found.secret), None)
        if with_secret is not None:
            return with_secret
        found = from_netrc(urlsplit(url).hostname or "", self.environ, self.home)
        if found is None and self.keyring and related:
            username = next((credentials.username for credentials in (own, *named) if credentials), None)
            found = from_keyring(without_credentials(related[0]), username)
        return found or own or next(iter(named), None)

    def trust(self) -> ssl.SSLContext | bool:
        """Return what an HTTP client shall verify servers with; True: what it trusts by default.

        Raises:
            SettingError: A certificate file is not there, or holds no certificate.
        """
        if self.ca_bundle is None and self.client_cert is None:
            return True
        try:
            context = ssl.create_default_context(cafile=self.ca_bundle)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert)
        except OSError as error:
            places = ", ".join(str(path) for path in (self.ca_bundle, self.client_cert) if path)
            raise SettingError(
                "METAFLOW_PREBUILT_CA_BUNDLE, SSL_CERT_FILE (pip: cert, client-cert)",
                at=places,
                reason=str(error),
                remedy="name a PEM file",
            ) from error
        return context

    def is_insecure(self, url: str) -> bool:
        """Return whether the host of `url` needs no valid certificate."""
        parts = urlsplit(url)
        return parts.hostname in self.insecure_hosts or parts.netloc.rpartition("@")[2] in self.insecure_hosts


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _shared_segments(one: str, other: str) -> int:
    """Return how many leading parts of their paths are the same."""
    pairs = zip(urlsplit(one).path.split("/"), urlsplit(other).path.split("/"), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), len(urlsplit(one).path.split("/")))


def _uses_keyring(uv: str | None, pip: str | None) -> bool:
    """Return whether to ask the keyring: uv's word first; pip's default, ``auto``, means where there is one."""
    if uv is not None:
        return uv == "subprocess"
    return pip != "disabled" and shutil.which("keyring") is not None


def _places(words: Sequence[str], home: Path) -> tuple[str, ...]:
    return tuple(str(home / word[2:]) if word.startswith("~/") else word for word in words)


def _file(path: str | None) -> Path | None:
    """Return the path of a file; None for a folder of certificates, which nothing but OpenSSL's defaults can read."""
    return Path(path).expanduser() if path and not Path(path).is_dir() else None
