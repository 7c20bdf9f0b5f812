"""Names and addresses of this machine itself."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address without a port, can only mean this machine: ``localhost``, 127.0.0.0/8, ::1.

    Source: RFC 6761, section 6.3 (names below ``localhost``)
    """
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
