"""HTTP clients for the hosts of package indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prebuilt.core.credentials import Credentials
from prebuilt.core.errors import SettingError
from prebuilt.lock.index_config import IndexConfig

if TYPE_CHECKING:
    import httpx2

_TIMEOUT_S = 30.0


def index_client(config: IndexConfig, *, is_insecure: bool, credentials: Credentials | None = None) -> httpx2.Client:
    """Return a new client, with the certificate authorities and the proxy of `config`.

    Args:
        config: That of this user.
        is_insecure: Whether any certificate will do.
        credentials: What it sends with each request; None for nothing.

    Raises:
        SettingError: There is no going through the proxy.
    """
    import httpx2

    try:
        return httpx2.Client(
            auth=(credentials.username, credentials.secret) if credentials else None,
            verify=False if is_insecure else config.trust(),
            proxy=config.proxy,
            timeout=_TIMEOUT_S,
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},  # sizes and hashes are of the file, not of a packed form
        )
    except (ValueError, httpx2.InvalidURL) as error:  # of the proxy: what we give is right
        raise SettingError(
            "pip's proxy" if config.proxy else "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY",
            reason=str(error),
            remedy="name a proxy as http://host:port or socks5://host:port",
        ) from error
