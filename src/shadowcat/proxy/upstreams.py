"""The configured upstreams, and which of them is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from shadowcat.core.balance import RoundRobin
from shadowcat.core.ports import Upstream
from shadowcat.errors import Fault, FaultKind

T = TypeVar("T")


class Upstreams:
    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._by_name = {upstream.name: upstream for upstream in upstreams}
        if len(self._by_name) != len(upstreams):
            raise ValueError("two upstreams of one name")
        self._turn = RoundRobin(tuple(upstreams))

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str) -> Upstream | None:
        return self._by_name.get(name)

    async def first_reachable(
        self, ask: Callable[[Upstream], Awaitable[T]], *, before: Upstream | None = None
    ) -> tuple[Upstream, T]:
        """Asks each in turn until one can be reached, `before` first. Only what nobody has seen is asked twice."""
        order = self._turn.order()
        if before is not None:
            order = (before, *(upstream for upstream in order if upstream is not before))
        unreachable: Fault | None = None
        for upstream in order:
            try:
                return upstream, await ask(upstream)
            except Fault as fault:
                if fault.kind is not FaultKind.UPSTREAM_UNAVAILABLE or fault.sent:
                    raise
                unreachable = fault
        assert unreachable is not None
        raise unreachable

    async def aclose(self) -> None:
        for upstream in self._by_name.values():
            await upstream.aclose()
