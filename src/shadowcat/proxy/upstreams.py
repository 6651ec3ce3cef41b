"""The upstreams of a proxy: what is known about them, and which one is asked."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from zlib import crc32

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.balance import Doubts, RoundRobin
from shadowcat.core.exchange import Caller
from shadowcat.core.ports import Upstream
from shadowcat.core.statistics import Answers
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.proxy.news import News, What

log = logging.getLogger("shadowcat.upstream")

T = TypeVar("T")

_WAITED_FOR = frozenset({"connect_timeout", "upstream_did_not_answer", "command_did_not_answer"})
"""Of the faults after which the next upstream is asked, those that took their time."""


@dataclass(slots=True)
class Trouble:
    """What is wrong with an upstream, until it answers again."""

    kind: FaultKind
    reason: str
    since: float
    last_at: float
    """When it was last seen, as the clock counts."""


class Roster(ABC):
    """Upstreams, however they came to be known."""

    are_named_by_clients = False
    """So that nobody can say how many there will be, nor what their names hold."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._trouble: dict[str, Trouble] = {}
        self._answers: dict[str, Answers] = {}
        self._clock = clock or SystemClock()
        self.faults: Counter[tuple[str, FaultKind]] = Counter()
        """How often each went wrong, and how."""
        self.news = News()
        """That of the proxy they belong to, once they do."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Upstream]: ...

    @abstractmethod
    def named(self, name: str) -> Upstream | None: ...

    @abstractmethod
    def name_for(self, caller: Caller) -> str:
        """Where everything of this caller's goes; empty where there is a choice."""

    def of_client(self, address: str) -> Upstream | None:
        """The one that a client without a session is served by, where there is a choice."""
        return None

    @abstractmethod
    async def first_reachable(
        self, ask: Callable[[Upstream], Awaitable[T]], caller: Caller, *, before: Upstream | None = None
    ) -> tuple[Upstream, T]:
        """Asks those that the caller may be served by in turn until one can be reached, `before` first."""

    def trouble(self, name: str) -> Trouble | None:
        return self._trouble.get(name)

    def failed(self, name: str, fault: Fault) -> None:
        """Says once what is wrong with an upstream, and again when it is something else."""
        if fault.side is not Side.UPSTREAM:
            return
        self.faults[name, fault.kind] += 1
        now = self._clock.monotonic()
        known = self._trouble.get(name)
        if known is not None and known.reason == fault.reason:
            known.last_at = now
            return
        self._trouble[name] = Trouble(fault.kind, fault.reason, known.since if known else now, now)
        log.warning("upstream %s: %s (%s)%s", name, fault.message, fault.reason, _because(fault))
        self.news.tell(What.UPSTREAM_TROUBLE, upstream=name, reason=fault.reason)

    def answered(self, name: str) -> None:
        if self._trouble and self._trouble.pop(name, None) is not None:
            log.info("upstream %s: answers again", name)
            self.news.tell(What.UPSTREAM_ANSWERS, upstream=name)

    def answers_of(self, name: str) -> Answers:
        answers = self._answers.get(name)
        if answers is None:
            answers = self._answers[name] = Answers()
        return answers

    def forget(self, name: str) -> None:
        """It is no longer one of them."""
        self._trouble.pop(name, None)
        self._answers.pop(name, None)
        for key in [key for key in self.faults if key[0] == name]:
            del self.faults[key]

    async def ask(self, upstream: Upstream, ask: Callable[[Upstream], Awaitable[T]]) -> T:
        try:
            answer = await ask(upstream)
        except Fault as fault:
            self.failed(upstream.name, fault)
            raise
        self.answered(upstream.name)
        return answer

    async def aclose(self) -> None:
        for upstream in self:
            await upstream.aclose()


def _because(fault: Fault) -> str:
    """In the words of the operating system, without its number; nothing where it would say the same again."""
    cause = fault.__cause__
    told = str((cause.strerror if isinstance(cause, OSError) else None) or cause or "")
    return "" if told in ("", fault.message) else f": {told}"


class Upstreams(Roster):
    """Those of the configuration: any of them will do."""

    def __init__(self, upstreams: Sequence[Upstream], clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._by_name = {upstream.name: upstream for upstream in upstreams}
        if len(self._by_name) != len(upstreams):
            raise ValueError("two upstreams of one name")
        self._all = tuple(upstreams)
        self._turn = RoundRobin(self._all)
        self._doubts = Doubts()
        """Where new sessions came to harm."""

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._all)

    def named(self, name: str) -> Upstream | None:
        return self._by_name.get(name)

    def name_for(self, caller: Caller) -> str:
        return self._all[0].name if len(self._all) == 1 else ""

    def of_client(self, address: str) -> Upstream:
        """The same one for the same client: what a modern server hands out to be sent back, only it can read."""
        return self._all[crc32(address.encode()) % len(self._all)]

    async def first_reachable(
        self, ask: Callable[[Upstream], Awaitable[T]], caller: Caller, *, before: Upstream | None = None
    ) -> tuple[Upstream, T]:
        """Only what nobody has seen is asked twice."""
        if before is None:
            order, ask_one = self._for_a_session(), self._ask_for_session
        else:
            order, ask_one = [before, *(other for other in self._all if other is not before)], self.ask
        *others, last = order
        for upstream in others:
            try:
                return upstream, await ask_one(upstream, ask)
            except Fault as fault:
                if fault.kind is not FaultKind.UPSTREAM_UNAVAILABLE or fault.sent:
                    raise
        return last, await ask_one(last, ask)

    def _for_a_session(self) -> list[Upstream]:
        """In turn, those that are in doubt after all others."""
        now = self._clock.monotonic()
        return sorted(self._turn.order(), key=lambda upstream: self._doubts.about(upstream.name, now))

    async def _ask_for_session(self, upstream: Upstream, ask: Callable[[Upstream], Awaitable[T]]) -> T:
        name, now = upstream.name, self._clock.monotonic
        self._doubts.taken(name, now())
        try:
            answer = await self.ask(upstream, ask)
        except Fault as fault:
            if _costs_a_session(fault):
                self._doubts.failed(name, now())
            raise
        self._doubts.succeeded(name)
        return answer


def _costs_a_session(fault: Fault) -> bool:
    """Whether it took a client its session, or long. One that is not there at once costs nothing, and is soon back."""
    if fault.kind is FaultKind.UPSTREAM_UNAVAILABLE:
        return fault.reason in _WAITED_FOR
    # What a client got wrong must not turn the others away.
    return fault.side is Side.UPSTREAM and not fault.reason.startswith("upstream_http_4")
