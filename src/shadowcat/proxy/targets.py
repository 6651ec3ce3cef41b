"""The servers that a forward proxy's clients have named: each an upstream for as long as it is in use."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from shadowcat.clock import Clock
from shadowcat.core.exchange import Caller
from shadowcat.core.ports import Upstream
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.upstreams import Roster

log = logging.getLogger("shadowcat.upstream")

T = TypeVar("T")

MAX_TARGETS = 200
IDLE_S = 60.0


@dataclass(slots=True)
class _Known:
    upstream: Upstream
    used_at: float
    asked: int = 0
    """Of it, and not answered yet."""


class Targets(Roster):
    """A caller's route is the URL of its server, and nothing but that server serves it."""

    are_named_by_clients = True

    def __init__(
        self,
        name_of: Callable[[str], str],
        make: Callable[[str, str], Upstream],
        most: int = MAX_TARGETS,
        clock: Clock | None = None,
    ) -> None:
        """`name_of` gives each URL a name of its own; `make` the upstream of that name and URL."""
        super().__init__(clock)
        self._name_of = name_of
        self._make = make
        self._most = most
        self._known: dict[str, _Known] = {}
        self.has_sessions: Callable[[str], bool] = lambda _: False
        """Whether any are open on the upstream of that name; for who has the sessions to say."""

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Upstream]:
        return iter([known.upstream for known in self._known.values()])

    def named(self, name: str) -> Upstream | None:
        return next((upstream for upstream in self if upstream.name == name), None)

    def name_for(self, caller: Caller) -> str:
        return self._name_of(caller.route)

    async def first_reachable(
        self, ask: Callable[[Upstream], Awaitable[T]], caller: Caller, *, before: Upstream | None = None
    ) -> tuple[Upstream, T]:
        known = self._known.get(caller.route) or await self._new(caller.route)
        known.asked += 1
        try:
            return known.upstream, await self.ask(known.upstream, ask)
        finally:
            known.asked -= 1
            known.used_at = self._clock.monotonic()

    async def _new(self, url: str) -> _Known:
        if len(self._known) >= self._most:
            await self._make_room()
        known = self._known.get(url)
        if known is None:
            known = self._known[url] = _Known(self._make(self._name_of(url), url), self._clock.monotonic())
        return known

    async def _make_room(self) -> None:
        """Lets go of every target that nobody has used for a while."""
        before = self._clock.monotonic() - IDLE_S
        idle = [
            url
            for url, known in self._known.items()
            if not known.asked and known.used_at <= before and not self.has_sessions(known.upstream.name)
        ]
        left = [self._known.pop(url).upstream for url in idle]
        for upstream in left:
            self.forget(upstream.name)
            await upstream.aclose()
        if len(self._known) >= self._most:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_targets")
