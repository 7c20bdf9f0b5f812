"""The login for Google's registries wherever they are read or pushed: base images, a push that outlasts its token."""

from __future__ import annotations

from prebuilt.core.credentials import Credentials, CredentialsSource
from prebuilt.core.settings import Settings
from prebuilt.gcr.identity import shared_identity
from prebuilt.oci.cloud_logins import FindSource
from prebuilt.oci.config import NetworkConfig
from prebuilt.oci.google import is_google
from prebuilt.oci.reference import split_repository

_UNAUTHORIZED = 401


def find_source(host: str, settings: Settings) -> CredentialsSource | None:
    """Return what gives tokens for `host`; None for hosts that are not Google's, and where nobody is logged in.

    Without a login public images are pulled, which many at ``gcr.io`` are. ``METAFLOW_PREBUILT_GCR_HOST`` may stand before one of
    Google's, or check their tokens: whoever names a host there means it to see them, if it asks.
    """
    if not is_google(host) and host != (settings.get("PREBUILT_GCR_HOST") or "").partition("/")[0]:
        return None
    identity = shared_identity(settings)
    return identity if identity.is_there() else None


def find_credentials(repository: str, settings: Settings) -> Credentials | None:
    """Return a token for a repository at a host that is not Google's; None where it asks nobody, or has a login of its own.

    Builders are handed it, which cannot wait until the registry asks.
    """
    from prebuilt.oci.docker_config import find_login

    host, path = split_repository(repository)
    source = find_source(host, settings)
    if source is None or find_login(host, path, settings.environ) is not None or not _asks(host, settings):
        return None
    return source()


def _asks(host: str, settings: Settings) -> bool:
    """Return whether the registry wants to know who is there."""
    from prebuilt.oci.retrying import TransientError
    from prebuilt.oci.transport import Call, Wire

    network = NetworkConfig.from_settings(settings)
    url = f"{network.base_url(host)}/v2/"
    call = Call(method="GET", url=url, tried="look whether the registry asks for a login", wanted=frozenset({200, 401}))
    try:
        response = Wire(network).open(call, None)
    except TransientError as transient:
        raise transient.error from transient
    response.close()
    return response.status_code == _UNAUTHORIZED


_: FindSource = find_source
