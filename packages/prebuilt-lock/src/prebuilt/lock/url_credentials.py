"""Credentials put into URLs, and found in netrc files and in keyrings."""

from __future__ import annotations

import logging
import netrc
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from prebuilt.core.credentials import Credentials

_log = logging.getLogger(__name__)
_KEYRING_TIMEOUT_S = 30.0  # a keyring that waits for a person on a desktop, or for a cloud's token service


def with_credentials(url: str, credentials: Credentials) -> str:
    """Return `url` with `credentials` in it, in place of what was there."""
    parts = urlsplit(url)
    user = quote(credentials.username, safe="") + (
        ":" + quote(credentials.secret, safe="") if credentials.secret else ""
    )
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))


def from_netrc(host: str, environ: Mapping[str, str], home: Path) -> Credentials | None:
    """Return what ``NETRC``, ``~/.netrc`` or ``~/_netrc`` says of `host`. A file that cannot be read is logged and skipped."""
    for read in _netrcs(environ, home):
        entry = read.authenticators(host)
        if entry is not None:
            return Credentials(username=entry[0] or "", secret=entry[2] or "")
    return None


def all_from_netrc(environ: Mapping[str, str], home: Path) -> dict[str, Credentials]:
    """Return what :func:`from_netrc` finds, for every host that is named."""
    hosts = {host for read in _netrcs(environ, home) for host in read.hosts if host != "default"}
    return {host: found for host in hosts if (found := from_netrc(host, environ, home)) is not None}


def _netrcs(environ: Mapping[str, str], home: Path) -> Iterator[netrc.netrc]:
    named = environ.get("NETRC")
    for path in [Path(named)] if named else [home / ".netrc", home / "_netrc"]:
        if not path.is_file():
            continue
        try:
            yield netrc.netrc(path)
        except (OSError, UnicodeDecodeError, netrc.NetrcParseError) as error:
            _log.warning("%s is not used: %s", path, error)


def from_keyring(url: str, username: str | None) -> Credentials | None:
    """Return what the ``keyring`` command knows of `url`, else of its host.

    Source: https://docs.astral.sh/uv/reference/settings/#keyring-provider (full URL first, then host)
    """
    command = shutil.which("keyring")
    if command is None:
        return None
    for service in (url, urlsplit(url).netloc.rpartition("@")[2]):
        mode = ["get", service, username] if username else ["--mode", "creds", "get", service, ""]
        try:
            answer = subprocess.run(
                [command, *mode], capture_output=True, text=True, check=False, timeout=_KEYRING_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            _log.warning("keyring gave no answer for %s: %s", service, error)
            return None
        lines = answer.stdout.splitlines()
        if answer.returncode == 0 and lines:
            return Credentials(username=username or lines[0], secret=lines[-1])
    return None
