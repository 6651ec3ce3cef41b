"""A call that is asked and answered without a task: what nearly all calls are.

Nothing is decided here that a request with a task would not decide the same way. What is not settled at once by a
whole answer (a stream, a refusal, a fault, an interceptor that wants to see it) goes on where such a request would be
by then. Measured: a task, the futures it waits for and its coroutines are a third of what a call costs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from shadowcat.core.correlate import InFlight
from shadowcat.core.exchange import TO_CLIENT, TO_SERVER, Answer, Rest
from shadowcat.errors import Fault
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import REMEMBERED, give_up, judged_response
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method

Outcome = Message | Reader | None
GoOn = Callable[[Message, InFlight[Stream], int, Rest[Answer]], Coroutine[Any, Any, Outcome]]
"""Waits for what an answer, asked for in that epoch, comes to."""

_NOT_JUST_PASSED_ON = frozenset({Method.PING, *REMEMBERED})


def ask(
    core: SessionCore, message: Message, go_on: GoOn, then: Callable[[Message | Rest[Outcome]], object]
) -> Callable[[], object] | None:
    """See `core.ports.ClientSession.ask`."""
    link = core.direct
    if link is None or message.method in _NOT_JUST_PASSED_ON or core.ledger.refuses:
        return None
    is_seen = bool(core.shared.pipeline)
    if is_seen and core.is_wanted(message, TO_SERVER):
        return None
    try:
        entry, outgoing = core.correlator.begin(message)
    except Fault:
        return None
    call = _Call(core, message, entry, core.correlator.epoch, go_on, then)
    give_up = link.ask(outgoing, call.answered)
    if give_up is None:
        core.correlator.finish(entry)
        return None
    call.give_up = give_up
    entry.interrupt = call.stopped
    core.last_used = core.shared.clock.monotonic()
    core.shared.counters.exchanges += 1
    if is_seen:
        core.tell_taps(message, TO_SERVER)
    return call.cancel


class _Call(msgspec.Struct, eq=False):
    """In flight it keeps its session as busy as a visitor would."""

    core: SessionCore
    request: Message
    entry: InFlight[Stream]
    epoch: int
    go_on: GoOn
    then: Callable[[Message | Rest[Outcome]], object]
    give_up: Callable[[], object] | None = None

    def answered(self, outcome: Answer | Rest[Answer]) -> None:
        core, entry = self.core, self.entry
        entry.interrupt = None
        if not isinstance(outcome, Answer):
            self.then(partial(self.go_on, self.request, entry, self.epoch, outcome))
            return
        core.correlator.finish(entry)
        try:
            told = self._told(outcome)
        except Exception as error:
            told = partial(_raised, error)
        self.then(told)

    def _told(self, answer: Answer) -> Message | Rest[Outcome]:
        core = self.core
        assert answer.whole is not None
        core.shared.upstreams.answered(core.record.upstream)
        response = answer.whole.with_id(self.entry.client_id)
        if core.passed(response, TO_CLIENT, self.request):
            return response
        return partial(judged_response, core, self.request, response)

    def stopped(self) -> None:
        """The client has cancelled it, or it has failed from here: nobody waits for the answer."""
        self.cancel()
        self.then(self._nothing)

    async def _nothing(self) -> None:
        fault = self.entry.fault
        if fault is not None:
            give_up(self.core, self.request, self.entry, fault)
            raise fault

    def cancel(self) -> None:
        self.entry.interrupt = None
        if self.give_up is not None:
            self.give_up()
        self.core.correlator.finish(self.entry)


async def _raised(error: Exception) -> Outcome:
    """Whatever goes wrong is told by who waits for it, as for any other request."""
    raise error
