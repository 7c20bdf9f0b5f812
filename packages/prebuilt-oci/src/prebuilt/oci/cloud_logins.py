"""Credentials that installed packages have for the registries of their cloud, where nobody has logged in.

A package offers them by an entry point in the group ``metaflow_prebuilt.logins``: a function that takes a registry's host and the
settings, and returns what gives credentials for it, or None where the host is not its own. It is asked for every host: it imports
its SDK when credentials are wanted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from prebuilt.core.credentials import CredentialsSource
from prebuilt.core.settings import Settings

GROUP = "metaflow_prebuilt.logins"

FindSource = Callable[[str, Settings], CredentialsSource | None]


def find_source(host: str, settings: Settings) -> CredentialsSource | None:
    """Return what gives credentials for the registry at `host`; None if no installed package has any."""
    for point in _installed():
        find: FindSource = point.load()
        source = find(host, settings)
        if source is not None:
            return source
    return None


@functools.cache
def _installed() -> tuple[EntryPoint, ...]:
    """Look at the installed packages once: that takes milliseconds, and is wanted for each registry without a login."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda point: point.name))
