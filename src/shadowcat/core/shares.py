"""How many of something each client has, so that no client can take them all."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address


class Shares:
    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def __getitem__(self, client: str) -> int:
        return self._taken[client]

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, client: str) -> None:
        self._taken[client] += 1

    def give_back(self, client: str) -> None:
        self._taken[client] -= 1
        if self._taken[client] <= 0:
            del self._taken[client]


def client_at(address: str) -> str:
    """By what a client is known: its address, or of IPv6 the network that one machine has to itself."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> 64 << 64))
