"""Names of hosts as they stand in `Host`, `Origin` and addresses to listen on."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Of an address, all of it: `127.0.0.1.example.com` is somebody's name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: bytes) -> str | None:
    """The name in `scheme://host:port`, or in `//host:port`; None for what is neither."""
    try:
        parts = urlsplit(url.decode("latin-1"))
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return None
    return parts.hostname if parts.username is None else None
