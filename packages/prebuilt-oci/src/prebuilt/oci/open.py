"""Opening a repository by its name, wherever it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.settings import Settings
from prebuilt.oci.reference import is_layout, layout_folder
from prebuilt.oci.repository import Repository

if TYPE_CHECKING:
    from prebuilt.oci.client import RegistryRepository


def open_repository(
    name: str,
    credentials: Credentials | CredentialsSource | None = None,
    *,
    settings: Settings | None = None,
    check: Callable[[], None] = lambda: None,
) -> Repository:
    """Return the repository called `name`: ``oci:/folder`` is an image layout, everything else is in a registry.

    Nothing is asked or made before the first call to it.

    Args:
        name: As :func:`~prebuilt.oci.reference.parse_repository` reads it.
        credentials: For the registry, or what gives them anew before they expire and when the registry refuses them; None to
            use what Docker's configuration has. A layout needs none.
        settings: None for those of this process.
        check: Called while a registry is waited for that asked for it, or that failed in passing; raises to stop.
    """
    if is_layout(name):
        from prebuilt.oci.layout import LayoutRepository

        return LayoutRepository(layout_folder(name))
    return _registry_repository(name, credentials, settings, check)


def _registry_repository(
    name: str,
    credentials: Credentials | CredentialsSource | None,
    settings: Settings | None,
    check: Callable[[], None],
) -> RegistryRepository:
    from prebuilt.core.retry import pause
    from prebuilt.oci.client import RegistryRepository  # its HTTP client takes long to import, and a layout needs none

    return RegistryRepository(name, credentials=credentials, settings=settings, sleep=partial(pause, check=check))
