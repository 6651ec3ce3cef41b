"""A call that is asked and answered without a task: what nearly all calls are.

Nothing is decided here that a request with a task would not decide the same way. What is not settled at once by a
whole answer (a stream that has to be followed, a refusal, a fault, an interceptor that has to be waited for) goes on
where such a request would be by then. Measured: a task, the futures it waits for and its coroutines are a third of
what a call costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import msgspec

from shadowcat.core.correlate import InFlight
from shadowcat.core.exchange import TO_CLIENT, TO_SERVER, Answer, Piece, Reply, Rest
from shadowcat.core.ports import DirectLink
from shadowcat.errors import Fault
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import REMEMBERED, give_up, thought_about
from shadowcat.proxy.pipeline import Undecided
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import PRIMING_VERSIONS, Method

Outcome = Message | Reader | None
Judged = Message | Reply | Undecided
Then = Callable[[Message | Piece | Rest[Outcome]], object]

_NOT_JUST_PASSED_ON = frozenset({Method.PING, *REMEMBERED})


class Waiting(Protocol):
    """A session, for whatever does have to be waited for."""

    core: SessionCore

    def ask_judged(self, message: Message, judged: Judged) -> Coroutine[Any, Any, Outcome]: ...

    def conclude(
        self, message: Message, entry: InFlight[Stream], seen: int, asking: Rest[Answer]
    ) -> Coroutine[Any, Any, Outcome]: ...


def ask(session: Waiting, message: Message, then: Then) -> Callable[[], object] | None:
    """See `core.ports.ClientSession.ask`."""
    core = session.core
    shared = core.shared
    link = core.direct
    if link is None or message.method in _NOT_JUST_PASSED_ON or core.ledger.refuses:
        return None
    if shared.limits.upgrade_after_s is not None and core.record.version in PRIMING_VERSIONS:
        return None
    pipeline = shared.pipeline
    if not pipeline.is_used:
        return _sent(session, link, message, then)
    if not pipeline.judges:
        give_up = _sent(session, link, message, then)
        if give_up is not None:
            # Whoever else sends it tells of it.
            tap = core.tap if core.taps_of is pipeline.taps else core.fresh_tap()
            try:
                tap.asked(message)
            except Exception as error:
                pipeline.tap_failed(tap, error)
        return give_up
    try:
        judged = core.judge(message, TO_SERVER)
    except Fault as fault:
        core.note_request(shared.clock.monotonic())
        return _left(partial(_raised, fault), then)
    # It was judged, once: whatever stops it from here on, nobody begins with it anew.
    if isinstance(judged, Undecided):
        cancel = _left(partial(session.ask_judged, message, judged), then)
        return lambda: (cancel(), judged.let_go())
    if isinstance(judged, Message) and judged.method not in _NOT_JUST_PASSED_ON:
        give_up = _sent(session, link, judged, then)
        if give_up is not None:
            return give_up
    return _left(partial(session.ask_judged, message, judged), then)


def _left(rest: Rest[Outcome], then: Then) -> Callable[[], object]:
    """For a task to go on with. Not from in here: who asks is not ready for it."""
    return asyncio.get_running_loop().call_soon(then, rest).cancel


def _sent(session: Waiting, link: DirectLink, message: Message, then: Then) -> Callable[[], object] | None:
    core = session.core
    correlator = core.correlator
    now = core.shared.clock.monotonic()
    try:
        entry, outgoing = correlator.begin(message, now)
    except Fault:
        return None
    call = _Call(session, core, message, entry, correlator.epoch, then)
    give_up = link.ask(outgoing, call.answered)
    if give_up is None:
        correlator.finish(entry)
        return None
    call.give_up = give_up
    entry.interrupt = call.stopped
    core.note_request(now)
    return call.cancel


class _Call(msgspec.Struct, eq=False):
    """In flight it keeps its session as busy as a visitor would."""

    session: Waiting
    core: SessionCore
    request: Message
    entry: InFlight[Stream]
    epoch: int
    then: Then
    give_up: Callable[[], object] | None = None

    def answered(self, outcome: Answer | Rest[Answer]) -> None:
        entry = self.entry
        entry.interrupt = None
        if not isinstance(outcome, Answer):
            self.then(partial(self.session.conclude, self.request, entry, self.epoch, outcome))
            return
        told = self._told(outcome)
        if isinstance(told, Reader):
            arrival = told.arrival()
            self.give_up = arrival.cancel
            arrival.add_done_callback(partial(self._stored, told))
        else:
            self.then(told)
        # Once it is on its way: the client need not wait for this.
        if outcome.whole is not None:
            self.core.note_answer(entry, outcome.whole)

    def _told(self, answer: Answer) -> Message | Piece | Reader | Rest[Outcome]:
        """A reader where the store is waited for."""
        core = self.core
        try:
            assert answer.whole is not None
            response = answer.whole.with_id(self.entry.client_id)
            pipeline = core.shared.pipeline
            if pipeline.judges:
                judged = core.judge(response, TO_CLIENT, self.request)
                if isinstance(judged, Undecided):
                    return partial(self._decided, judged, answer.came_as_stream)
                response = judged.message if isinstance(judged, Reply) else judged
            elif pipeline.is_tapped:
                tap = core.tap if core.taps_of is pipeline.taps else core.fresh_tap()
                try:
                    tap.answered(response, self.request)
                except Exception as error:
                    pipeline.tap_failed(tap, error)
            core.correlator.finish(self.entry)
            if not answer.came_as_stream:
                return response
            reader = self._kept(response)
            return reader if reader.is_held_back else reader.whole() or partial(_given, reader)
        except Exception as error:
            core.correlator.finish(self.entry)
            return partial(_raised, error)

    async def _decided(self, judged: Undecided, came_as_stream: bool) -> Outcome:
        try:
            outcome = await thought_about(self.core, self.request, self.entry, judged.outcome())
        finally:
            # It may not have been begun with.
            judged.let_go()
        told = outcome.message if isinstance(outcome, Reply) else outcome
        return self._kept(told) if told is not None and came_as_stream else told

    def _stored(self, reader: Reader, arrival: asyncio.Future[None]) -> None:
        """Or the store is not waited for any longer."""
        if not arrival.cancelled():
            self.then(reader.whole() or partial(_given, reader))

    def _kept(self, response: Message) -> Reader:
        """On a stream of its own, which the client can come back to."""
        book = self.core.book
        stream = book.new(self.entry.client_id)
        reader = stream.read()
        stream.append(response)
        book.finish(stream)
        return reader

    def stopped(self) -> None:
        """The client has cancelled it, or it has failed from here: nobody waits for the answer."""
        self.cancel()
        self.then(self._nothing)

    async def _nothing(self) -> None:
        fault = self.entry.fault
        if fault is not None:
            give_up(self.core, self.request, self.entry, fault)
            raise fault.anew()

    def cancel(self) -> None:
        self.entry.interrupt = None
        if self.give_up is not None:
            self.give_up()
        self.core.correlator.finish(self.entry)


async def _given(reader: Reader) -> Outcome:
    return reader


async def _raised(error: Exception) -> Outcome:
    """Whatever goes wrong is told by who waits for it, as for any other request."""
    try:
        raise error
    finally:
        # It holds this frame: in a circle both would stay.
        del error
