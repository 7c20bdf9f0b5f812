"""Credentials that users write into URLs of packages and channels: remembered while this process runs, and written nowhere.

Values and documents hold URLs without them. Whoever is about to ask a server looks here.
"""

from __future__ import annotations

import threading
from urllib.parse import unquote, urlsplit

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import InvalidValueError, without_credentials

_HTTP = {"http", "https"}

_lock = threading.Lock()
_by_url: dict[str, Credentials] = {}


def credentials_in(url: str) -> Credentials | None:
    """Return the user name and password that `url` holds; None if it holds neither."""
    parts = urlsplit(url)
    if not parts.password and not parts.username:
        return None
    return Credentials(username=unquote(parts.username or ""), secret=unquote(parts.password or ""))


def remember_credentials(url: str) -> str:
    """Return `url` without its credentials, which are remembered for it and for all below it.

    What is no URL of HTTP is returned as it is: the user of an ``ssh://`` URL is no secret, and is needed.

    Raises:
        InvalidValueError: It is a malformed URL.
    """
    try:
        found = credentials_in(url) if _scheme(url) in _HTTP else None
    except ValueError as error:
        raise InvalidValueError("a URL", url, reason=str(error)) from error
    if found is None:
        return url
    bare = without_credentials(url)
    with _lock:
        _by_url[_key(bare)] = found
    return bare


def remembered_credentials(url: str) -> Credentials | None:
    """Return what was remembered for `url`, or for the closest URL above it; None if nothing was."""
    key = _key(without_credentials(url))
    with _lock:
        above = [known for known in _by_url if key == known or key.startswith(f"{known}/")]
        return _by_url[max(above, key=len)] if above else None


def _scheme(url: str) -> str:
    return urlsplit(url).scheme.rpartition("+")[2]


def _key(url: str) -> str:
    """Return scheme, host and path: ``git+https`` and ``https`` ask the same server."""
    parts = urlsplit(url)
    return f"{_scheme(url)}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
