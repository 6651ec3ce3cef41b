"""Clients that go on whatever becomes of the proxy: each comes back for what it has not got, and counts it all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from shadowcat.proxy.book import NOBODYS_EPOCH
from tests.faults.caller import Broken, Caller, Event, Hearing, Tally
from tests.faults.numbers import CallPlan

T = TypeVar("T")

YES = {"action": "accept", "content": {}}
BETWEEN_TRIES_S = 0.02
OUTCOME_UNKNOWN = -31004
NOT_STORED = "store_unavailable"
STOPS = "proxy_stops"
UNAVAILABLE = 503


async def insist(act: Callable[[], Awaitable[T]]) -> T:
    """Again until somebody is there to answer; the deadline is the caller's."""
    while True:
        try:
            return await act()
        except (Broken, OSError):
            await asyncio.sleep(BETWEEN_TRIES_S)


async def answer(client: Caller, question: Any) -> None:
    """Returns when it was accepted."""

    async def give() -> None:
        hearing = await client.post({"jsonrpc": "2.0", "id": question["id"], "result": YES})
        await _opened(hearing, 202)
        hearing.close()

    await insist(give)


async def resumed(client: Caller, tally: Tally) -> Hearing:
    """The rest of a stream, once the proxy can serve it."""

    async def resume() -> Hearing:
        hearing = await client.listen(tally.last_id)
        await _opened(hearing)
        return hearing

    return await insist(resume)


async def _opened(hearing: Hearing, status: int = 200) -> None:
    """Raises `Broken` where the proxy cannot serve it for the time being."""
    if not hearing.status:
        await hearing.head()
    if hearing.status == UNAVAILABLE:
        hearing.close()
        raise Broken
    assert hearing.status == status, hearing.status


class Customer:
    """One session, its standalone stream, and one call after another."""

    def __init__(
        self,
        client: Caller,
        upstream_id: str,
        draws: random.Random,
        *,
        strict: bool,
        lost: frozenset[int] = frozenset({OUTCOME_UNKNOWN}),
    ) -> None:
        """`strict`: what was heard is in the store, so not even a number is used twice.

        `lost`: the codes that say that what was asked may not have been done.
        """
        self.client = client
        self.standalone = Tally(f"standalone {upstream_id}")
        self.tallies: list[Tally] = [self.standalone]
        self.kinds: dict[str, int] = {}
        """How many calls of each kind came to their end."""
        self.unknown = 0
        """Calls of which the client was told that their outcome is unknown."""
        self.refused = 0
        """Calls that were not begun, because the proxy stopped or the store could not keep up."""
        self.unheard = 0
        """Calls that broke before the client heard anything of them."""
        self._upstream_id = upstream_id
        self._draws = draws
        self._strict = strict
        self._lost = lost
        self._listening: Hearing | None = None

    # The standalone stream.

    async def listens(self) -> None:
        self._listening = await self.client.begun(await self.client.listen())

    async def hears(self, emitted: Callable[[], int], is_over: asyncio.Event) -> None:
        """To the last of what was emitted by the time that all is over."""
        assert self._listening is not None
        tally, hearing = self.standalone, self._listening
        while not is_over.is_set() or tally.number < emitted():
            try:
                await _opened(hearing)
                event = await hearing.event()
            except Broken:
                event = None
            if event is None:
                hearing.reset()
                hearing = await insist(lambda: self.client.listen(tally.last_id))
                self._listening = hearing
            else:
                tally.take(event)

    # Calls.

    async def calls(self, is_over: asyncio.Event) -> None:
        kinds = {
            "resumable": self._resumable,
            "asking": self._asking,
            "one answer": self._one_answer,
            "without ids": self._without_ids,
        }
        number = 0
        while not is_over.is_set():
            number += 1
            kind = self._draws.choice(list(kinds))
            # Each a little other than the last, so that a kill finds them anywhere.
            count = self._draws.randrange(20, 200)
            await kinds[kind](f"{kind} {self._upstream_id} {number}".replace(" ", "-"), count)
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    async def _resumable(self, label: str, count: int) -> None:
        plan = CallPlan(label=label, count=count, size=50, pause_s=0.002)
        tally = Tally(label, plan.size)
        if await self.attend(plan, tally) and not self._was_never_begun(tally):
            tally.check_result(plan)

    async def _asking(self, label: str, count: int) -> None:
        plan = CallPlan(label=label, count=count, pause_s=0.002, ask_after=count // 2)
        tally = Tally(label)
        if await self.attend(plan, tally) and not self._was_never_begun(tally):
            tally.check_result(plan)
            assert tally.response["result"]["structuredContent"]["answer"] == YES
            assert len(tally.asked) == 1

    async def _one_answer(self, label: str, count: int) -> None:
        """Long in coming, so that it is given a stream where the version allows; the server does not repeat it."""
        plan = CallPlan(label=label, count=count, pause_s=0.002, answers_json=True)
        tally = Tally(label)
        if await self.attend(plan, tally) and not self._is_unknown(tally):
            assert tally.response["result"]["structuredContent"]["label"] == label, tally.response

    async def _without_ids(self, label: str, count: int) -> None:
        plan = CallPlan(label=label, count=count, pause_s=0.002, ids=False)
        tally = Tally(label, may_end_early=not self._strict)
        if await self.attend(plan, tally) and not self._is_unknown(tally):
            tally.check_result(plan)

    def _was_never_begun(self, tally: Tally) -> bool:
        """Before its first event the server has given nothing to ask for the rest with.

        Nor can who takes a session over ask for the rest of a stream that had yet to be stored; what came on that is
        told under ids that are nobody's.
        """
        is_nobodys = tally.last_id is not None and tally.last_id.startswith(f"{NOBODYS_EPOCH}.")
        return (tally.number == 0 or is_nobodys) and self._is_unknown(tally)

    def _is_unknown(self, tally: Tally) -> bool:
        error = tally.response.get("error")
        if error is None:
            return False
        reason = error["data"]["reason"]
        if reason == STOPS or (self._strict and reason == NOT_STORED):
            # Nothing was begun: it came while the proxy stopped, or the store was found too slow for it.
            self.refused += 1
            return True
        assert error["code"] in self._lost, error
        self.unknown += 1
        return True

    async def attend(self, plan: CallPlan, tally: Tally) -> bool:
        """Hears a call to its end, and answers what is asked; False where nothing of it was ever heard."""
        self.tallies.append(tally)
        hearing = await insist(lambda: self.client.call(plan))
        while True:
            try:
                await _opened(hearing)
                if hearing.headers["content-type"] == "application/json":
                    tally.take(Event(await hearing.body()))
                    return True
                while (event := await hearing.event()) is not None:
                    tally.take(event)
                    if tally.asked and event.data and event.json == tally.asked[-1]:
                        await answer(self.client, tally.asked[-1])
            except Broken:
                hearing.reset()
            if tally.is_complete:
                return True
            if tally.last_id is None:
                self.unheard += 1
                return False
            hearing = await insist(lambda: self.client.listen(tally.last_id))
