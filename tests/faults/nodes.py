"""Two nodes on one Redis, and clients that speak to whichever they happen to be led to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.faults.caller import Caller, seeded
from tests.faults.child import NumbersChild
from tests.faults.customers import Customer
from tests.faults.restarts import Restarting, kept_proxy_before

LEASE_S = 1.0


@dataclass(eq=False)
class Nodes:
    one: Restarting
    two: Restarting

    def __iter__(self) -> Iterator[Restarting]:
        return iter((self.one, self.two))

    def other(self, node: Restarting) -> Restarting:
        return self.two if node is self.one else self.one

    async def written(self) -> None:
        for node in self:
            await node.written()

    async def sum_of(self, what: str) -> int:
        return sum([(await node.child.statistics())[what] for node in self])


@asynccontextmanager
async def two_nodes(upstream: str, store: str, **options: Any) -> AsyncIterator[Nodes]:
    settings: dict[str, Any] = {"lease_s": LEASE_S, **options}
    async with (
        kept_proxy_before(upstream, store, **settings) as one,
        kept_proxy_before(upstream, store, **settings) as two,
    ):
        yield Nodes(one, two)


class Roamer(Caller):
    """One session; each request goes to a node of its own, as a balancer without memory leads it."""

    def __init__(self, nodes: Nodes, draws: random.Random) -> None:
        self._nodes = nodes
        self._draws = draws
        super().__init__(0)

    @property
    def port(self) -> int:
        return self._draws.choice(list(self._nodes)).port

    @port.setter
    def port(self, port: int) -> None: ...


@asynccontextmanager
async def roaming_customers(
    nodes: Nodes, counting: NumbersChild, count: int, *, strict: bool = False
) -> AsyncIterator[list[Customer]]:
    """Each listens, and something has been said on each stream: one without has nothing to be resumed from."""
    clients = [Roamer(nodes, seeded(f"way {number}")) for number in range(count)]
    try:
        for client in clients:
            await client.initialize()
        sessions = (await counting.control("tell"))["sessions"]
        customers = [
            Customer(client, upstream_id, seeded(f"calls {upstream_id}"), strict=strict)
            for client, upstream_id in zip(clients, sessions, strict=True)
        ]
        for customer in customers:
            await customer.listens()
        yield customers
    finally:
        for client in clients:
            await client.close()
