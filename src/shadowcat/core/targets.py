"""Which servers a forward proxy's clients may reach: a name is judged as written, and again where it leads.

A name is somebody's to point at any address, and at another one the next moment. So a name is never allowed because
of the address that it has, and an address that an allowed name leads to is judged in the connection that was made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Annotated, NamedTuple, Self

from msgspec import Meta, Struct

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.hosts import is_loopback

_METADATA = frozenset(
    map(
        ip_address,
        ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:42::42", "fd20:ce::254"),
    )
)
"""Where clouds give a machine its credentials, beside 169.254.169.254, which is link-local anyway."""
_HIDING = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")))
"""Addresses that stand for one of IPv4, which a gateway reaches: any of those above may be behind one."""

_HTTP_PORT = 80
_PORT = re.compile(r"[0-9]{0,5}")


class Target(NamedTuple):
    """A server that a client named."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _HTTP_PORT else f"{host}:{self.port}"


def target_of(authority: bytes) -> Target:
    """`HOST`, `HOST:PORT`, `[V6]:PORT`. Raises `Fault` for a port that is none."""
    text = authority.decode("latin-1").lower()
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    if not _PORT.fullmatch(port) or not 0 < (number := int(port or _HTTP_PORT)) < 65536:
        raise Fault(FaultKind.INVALID_REQUEST, "The target's port is none")
    return Target(_canonical(host.strip("[]")), number)


class TargetName(str):
    """`HOST`, whatever the port, or `HOST:PORT`."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        found = _NAME.fullmatch(text)
        if found is None or not 0 < int(found[2] or 1) < 65536:
            raise ValueError(f"{text!r} is not HOST or HOST:PORT, for example mcp.local:3000")
        return super().__new__(cls, text.lower())

    @property
    def host(self) -> str:
        found = _NAME.fullmatch(self)
        assert found is not None
        return _canonical(found[1].strip("[]"))

    @property
    def port(self) -> int | None:
        found = _NAME.fullmatch(self)
        assert found is not None
        return int(found[2]) if found[2] else None


_NAME = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")


class ForwardOptions(Struct, frozen=True):
    allow_targets: Annotated[
        tuple[TargetName, ...],
        Meta(
            description="With no server given: servers that clients may name, in addition to those on "
            "loopback."
        ),
    ] = ()


class TargetRules:
    def __init__(self, allowed: Iterable[TargetName] = (), *, loopback: bool) -> None:
        """`loopback`: every port of this machine's own addresses, by address or as `localhost`."""
        self._allowed = frozenset((name.host, name.port) for name in allowed)
        self._loopback = loopback

    def allows(self, target: Target) -> bool:
        """As it is written."""
        host, port = target
        if self._loopback and is_loopback(host):
            return True
        return (host, None) in self._allowed or (host, port) in self._allowed

    def admits(self, host: str, address: str) -> bool:
        """Where an allowed target led to."""
        if _address(host) is not None:
            # Written as an address: it leads to itself.
            return True
        found = _address(address.partition("%")[0])
        if found is None:
            return False
        if host == "localhost":
            return found.is_loopback
        if found.is_loopback:
            return self._loopback
        if found.is_link_local or found.is_unspecified or found.is_multicast:
            return False
        return found not in _METADATA and not any(found in network for network in _HIDING)


def _canonical(host: str) -> str:
    address = _address(host.lower())
    return host.lower() if address is None else str(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # ::ffff:127.0.0.1 is 127.0.0.1 to the system.
    return getattr(address, "ipv4_mapped", None) or address
