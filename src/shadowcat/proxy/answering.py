"""The client's answers to the server's questions, accepted only once the server has them.

An answer is a promise kept by nobody else. The client's program has it no more once it was accepted, and the server
waits for it: so it is given again while the server cannot be reached, and where it was not given the question stays
open for another try.
"""

from __future__ import annotations

import asyncio
import logging
import random

from shadowcat.core.backoff import Backoff
from shadowcat.core.correlate import ServerRequest
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import withdraw
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId

log = logging.getLogger("shadowcat.session")

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
        try:
            await asyncio.shield(giving)
        finally:
            # It keeps what it fails with, which holds this frame.
            del giving
        return True

    def give_up(self, asked: ServerRequest[Stream]) -> None:
        """Nobody came to answer it: the server is told so, and asked to wait no longer."""
        core = self._core
        if not asked.is_given_up:
            asked.is_given_up = True
            core.shared.counters.server_requests_expired += 1
            withdraw(core, asked, "nobody answered in time")
        fault = Fault(FaultKind.DEADLINE, reason="client_did_not_answer", side=Side.DOWNSTREAM)
        answer = jsonrpc.error(asked.upstream_id, fault.error())
        # Not waited for: an upstream that hangs must not keep the other sessions from being looked after.
        core.shared.tasks.spawn(self._give_for_client(asked, answer), "answer for the client")

    async def _give_for_client(self, asked: ServerRequest[Stream], answer: Message) -> None:
        try:
            await self._give(asked, answer)
        except Fault as fault:
            # The question is still open, and will be found overdue again.
            log.warning(
                "session %s: %r did not reach the upstream: %s",
                self._core.record.id[:8],
                answer,
                fault.reason,
            )

    async def _give(self, asked: ServerRequest[Stream], answer: Message) -> None:
        core = self._core
        try:
            await self._insist(asked, answer)
        except BaseException as error:
            if isinstance(error, Fault) and error.kind is FaultKind.UPSTREAM_SESSION_LOST:
                # Nobody is left who asked.
                core.correlator.close(asked)
            else:
                core.correlator.reopen(asked)
            raise
        core.correlator.close(asked)
        core.ledger.record_changed()

    async def _insist(self, asked: ServerRequest[Stream], answer: Message) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + GIVEN_UP_AFTER_S
        backoff = Backoff(0.25, 5.0)
        while True:
            if asked.epoch != self._core.correlator.epoch:
                # Whoever asks under this id by now asked something else.
                raise Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="upstream_session_lost", sent=True)
            try:
                return await self._core.link.send(answer)
            except Fault as fault:
                wait_s = backoff.next_s(random.random())
                if fault.kind not in _AGAIN or loop.time() + wait_s >= until:
                    raise
            await asyncio.sleep(wait_s)
