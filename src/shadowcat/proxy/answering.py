"""Answers of the client's to what the server asked: accepted once the server has them, and not before.

An answer is a promise kept by nobody else. The client's program has it no more once it was accepted, and the server
waits for it: so it is given again while the server cannot be reached, and where it was not given the question stays
open for another try.
"""

from __future__ import annotations

import asyncio
import random

from shadowcat.core.backoff import Backoff
from shadowcat.core.correlate import ServerRequest
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import Message, RequestId

GIVEN_UP_AFTER_S = 30.0
"""How long a client waits for its answer to be accepted while the server is away."""
_AGAIN = (FaultKind.UPSTREAM_UNAVAILABLE, FaultKind.OUTCOME_UNKNOWN)
"""The server does not mind an answer that comes twice: its question is answered by the first."""


class Answering:
    """The answers of one session that are on their way."""

    __slots__ = ("_core", "_under_way")

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        self._under_way: dict[RequestId | None, asyncio.Task[None]] = {}

    async def give(self, answer: Message) -> bool:
        """True once the server has it; False for the answer to nothing. Raises `Fault` where it was not delivered."""
        giving = self._under_way.get(answer.id)
        if giving is None:
            found = self._core.correlator.answered_by_client(answer)
            if found is None:
                return False
            giving = self._core.shared.tasks.spawn(self._give(*found), "answer", awaited=True)
            self._under_way[answer.id] = giving
            giving.add_done_callback(lambda _: self._under_way.pop(answer.id))
        # Who gives it a second time is told the same as the first, and no sooner.
        await asyncio.shield(giving)
        return True

    async def _give(self, asked: ServerRequest[Stream], answer: Message) -> None:
        core = self._core
        try:
            await self._insist(asked, answer)
        except BaseException:
            core.correlator.not_delivered(asked)
            raise
        core.correlator.delivered(asked)
        core.ledger.record_changed()

    async def _insist(self, asked: ServerRequest[Stream], answer: Message) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + GIVEN_UP_AFTER_S
        backoff = Backoff(0.25, 5.0)
        while True:
            try:
                return await self._core.link.send(answer)
            except Fault as fault:
                wait_s = backoff.next_s(random.random())
                if fault.kind not in _AGAIN or loop.time() + wait_s >= until:
                    raise
            await asyncio.sleep(wait_s)
            if asked.epoch != self._core.correlator.epoch:
                raise Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="upstream_session_lost", sent=True)
