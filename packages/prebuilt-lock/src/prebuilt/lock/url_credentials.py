"""Credentials in URLs, in netrc files and in keyrings."""

from __future__ import annotations

import logging
import netrc
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from prebuilt.core.credentials import Credentials

_log = logging.getLogger(__name__)
_KEYRING_TIMEOUT_S = 30.0  # a keyring that waits for a person on a desktop, or for a cloud's token service


def credentials_in(url: str) -> Credentials | None:
    """Return the user name and password that `url` holds; None if it holds no password."""
    parts = urlsplit(url)
    if not parts.password and not parts.username:
        return None
    return Credentials(username=unquote(parts.username or ""), secret=unquote(parts.password or ""))


def with_credentials(url: str, credentials: Credentials) -> str:
    """Return `url` with `credentials` in it, in place of what was there."""
    parts = urlsplit(url)
    user = quote(credentials.username, safe="") + (
        ":" + quote(credentials.secret, safe="") if credentials.secret else ""
    )
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))


def from_netrc(host: str, environ: Mapping[str, str], home: Path) -> Credentials | None:
    """Return what ``NETRC``, ``~/.netrc`` or ``~/_netrc`` says of `host`. A file that cannot be read is logged and skipped."""
    named = environ.get("NETRC")
    for path in [Path(named)] if named else [home / ".netrc", home / "_netrc"]:
        if not path.is_file():
            continue
        try:
            entry = netrc.netrc(path).authenticators(host)
        except (OSError, UnicodeDecodeError, netrc.NetrcParseError) as error:
            _log.warning("%s is not used: %s", path, error)
            continue
        if entry is not None:
            return Credentials(username=entry[0] or "", secret=entry[2] or "")
    return None


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
