"""The certificate authorities that indexes and channels are verified with, as one file: uv and rattler take no more than that."""

from __future__ import annotations

import hashlib
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prebuilt.core.errors import SettingError
from prebuilt.core.settings import Settings
from prebuilt.core.storage import cache_dir, storage_errors, write_atomically

SETTING = "METAFLOW_PREBUILT_CA_BUNDLE"

# Where systems keep theirs, if OpenSSL's own answer is a folder.
# Source: https://github.com/alexcrichton/openssl-probe (find_certs_dirs, probe)
_SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"

_environment = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """Whom this user trusts.

    Attributes:
        instead: File that takes the place of the system's (``SSL_CERT_FILE``, pip's ``cert``, ``REQUESTS_CA_BUNDLE``); None: the system's.
        beside: File or folder that is trusted beside those (``METAFLOW_PREBUILT_CA_BUNDLE``): it may be for one registry alone.
        folders: Folders of certificates that are named besides (``SSL_CERT_DIR``, ``REQUESTS_CA_BUNDLE``): what runs here finds those
            that it reads by itself.
        cache: Folder for a file that holds both.
    """

    instead: Path | None = None
    beside: Path | None = None
    folders: tuple[Path, ...] = ()
    cache: Path | None = None

    @classmethod
    def load(cls, settings: Settings, of_pip: str | None) -> Authorities:
        """Read the settings; `of_pip` is the file that pip is told to trust.

        Raises:
            SettingError: ``METAFLOW_PREBUILT_CA_BUNDLE`` names nothing.
        """
        environ, own = settings.environ, settings.get("PREBUILT_CA_BUNDLE")
        beside = Path(own).expanduser() if own else None
        if beside is not None and not beside.exists():
            remedy = "name a PEM file with certificate authorities"
            raise SettingError(SETTING, at=str(beside), reason="no such file or folder", remedy=remedy)
        named = environ.get("SSL_CERT_FILE") or of_pip or environ.get("REQUESTS_CA_BUNDLE")
        instead = Path(named).expanduser() if named and not Path(named).is_dir() else None
        besides = [Path(name) for name in (environ.get("SSL_CERT_DIR"), named) if name and Path(name).is_dir()]
        cache = cache_dir(settings) / "certificates"
        return cls(instead=instead, beside=beside, folders=tuple(besides), cache=cache)

    @property
    def named(self) -> tuple[Path, ...]:
        """The files that this user was told to trust, without the system's."""
        own = self._own_files()
        instead = [self.instead] if self.instead is not None and self.instead not in own else []
        return (*instead, *own, *(path for folder in self.folders for path in _certificates_in(folder)))

    def file(self) -> Path | None:
        """Return the file that holds all of them; None where the system's are all.

        Raises:
            StorageError: The cache is not writable.
        """
        if self.beside is None or self.cache is None or self._own_files() == (self.instead,):
            return self.instead
        paths = (self.instead or _system_file(), *self._own_files())
        whole = b"\n".join(dict.fromkeys(_read(path) for path in paths if path))
        path = self.cache / f"{hashlib.sha256(whole).hexdigest()[:16]}.pem"
        if not path.is_file():
            write_atomically(path, whole)
        return path

    def _own_files(self) -> tuple[Path, ...]:
        if self.beside is None or not self.beside.is_dir():
            return (self.beside,) if self.beside is not None else ()
        return tuple(_certificates_in(self.beside))


@contextmanager
def trusting(file: Path | None) -> Iterator[None]:
    """Have rattler's client, which is made in the body, trust `file`: it takes that from the environment alone."""
    if file is None or os.environ.get("SSL_CERT_FILE") == str(file):
        yield
        return
    with _environment:
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(file)
        try:
            yield
        finally:
            if before is None:
                del os.environ["SSL_CERT_FILE"]
            else:
                os.environ["SSL_CERT_FILE"] = before


def _certificates_in(folder: Path) -> list[Path]:
    """Return the files of certificates in a folder, by name. OpenSSL's have each twice: links by hashes lead to files."""
    with storage_errors("list certificates", folder):
        return sorted(path for path in folder.iterdir() if path.is_file() and _CERTIFICATE in path.read_bytes())


def _system_file() -> Path | None:
    of_openssl = ssl.get_default_verify_paths().cafile
    return next((path for name in (of_openssl, *_SYSTEM_FILES) if name and (path := Path(name)).is_file()), None)


def _read(path: Path) -> bytes:
    with storage_errors("read certificates", path):
        return path.read_bytes()
