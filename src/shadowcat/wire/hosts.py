"""Names of hosts as they stand in `Host`, `Origin` and addresses to listen on."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

_EVERYWHERE = ("0.0.0.0", "::")


class Address(str):
    """`HOST:PORT`, `[V6]:PORT`, or `:PORT` for loopback. Port 0 takes a free one."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        host, colon, port = text.rpartition(":")
        if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:8080")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"{text!r}: write an IPv6 address in brackets, for example [::1]:8080")
        return super().__new__(cls, f"{host or '127.0.0.1'}:{int(port)}")

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])


def is_loopback(host: str) -> bool:
    """Of an address, all of it: `127.0.0.1.example.com` is somebody's name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_reached_by(listen: Address, host: str, port: int) -> bool:
    """Whether it is plain that a server which listens there is reached so; no name but `localhost` is looked up."""
    if port != listen.port:
        return False
    if listen.host in _EVERYWHERE:
        return is_loopback(host) or host in _EVERYWHERE
    is_local = is_loopback(host) and is_loopback(listen.host)
    return host == listen.host.lower() or (is_local and "localhost" in (host, listen.host))


def host_of(url: bytes) -> str | None:
    """The name in `scheme://host:port`, or in `//host:port`; None for what is neither."""
    try:
        parts = urlsplit(url.decode("latin-1"))
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return None
    return parts.hostname if parts.username is None else None
