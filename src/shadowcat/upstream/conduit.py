"""A channel to a server, shared by many requests: each hears its own messages, and none holds up the rest.

On it nothing says which request a message of the server's belongs to, but for an answer, progress, and what
names a subscription. The rest is given to the one request that runs, or else to the one party there is; what could be
anybody's is given to nobody, except the news that a list changed, which is no secret.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from shadowcat.aio import Tasks
from shadowcat.core import multiplex
from shadowcat.core.correlate import progress_token
from shadowcat.core.redact import shown
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.upstream.call import Call, Party, Question
from shadowcat.upstream.given_up import GivenUp
from shadowcat.upstream.interpret import messages_of
from shadowcat.upstream.readers import ConduitCounters, Readers
from shadowcat.wire import jsonrpc
from shadowcat.wire.glance import tells_or_asks
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import LIST_CHANGED, Method

log = logging.getLogger("shadowcat.upstream")

MAX_CALLS = 10_000
MAX_QUESTIONS = 1_000
MAX_SAYING = 100
"""What is said from here while the server does not take it: it is its own loss."""
_LOOK_S = 1.0
_ANYBODYS = frozenset(LIST_CHANGED.values())
_ID_AT_THE_START = re.compile(rb'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,')


@dataclass(frozen=True, slots=True)
class ConduitLimits:
    call_s: float | None = 300.0
    """How long a server may be silent during a call; None: for ever."""
    question_s: float = 600.0
    """How long a question of the server's waits for an answer."""
    stall_s: float = 1.0
    """How long a server is not read because one reader is behind; after that, the reader loses notifications."""


class Conduit(ABC):
    """What carries the messages is a subclass's: it implements what is abstract, and calls `_hear` and `_over`."""

    ended: str
    """The reason of the fault that calls under way end with."""
    told: str | None = None
    """What their clients are told, where it was no connection that was lost."""

    def __init__(self, name: str, limits: ConduitLimits, counters: ConduitCounters) -> None:
        self.name = name
        self.is_initialized = False
        """The server was told so; where sessions share it, by the first of them."""
        self._limits = limits
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(f"conduit {name}")
        self._last_id = 0
        self._calls: dict[int, Call] = {}
        self._parties: set[Party] = set()
        self._asked: dict[RequestId, Question] = {}
        self._given_up = GivenUp()
        self._readers = Readers(
            name, limits.stall_s, counters, pause=self._pause_reading, resume=self._resume_reading
        )
        self._look: asyncio.TimerHandle | None = None

    @property
    @abstractmethod
    def is_gone(self) -> bool: ...

    @abstractmethod
    async def _carry(self, message: Message, call: Call | None = None) -> None:
        """Returns once the message is on its way; `call` is what it asks for. Raises `Fault` if it was not taken."""

    @abstractmethod
    def _carry_nowait(self, message: Message) -> bool:
        """False where it would have to wait. Raises `Fault` where nothing more is taken."""

    @abstractmethod
    def _pause_reading(self) -> None: ...

    @abstractmethod
    def _resume_reading(self) -> None: ...

    @property
    def has_parties(self) -> bool:
        return bool(self._parties)

    # For those who use it.

    def join(self) -> Party:
        party = Party(self._readers.caught_up)
        self._parties.add(party)
        return party

    def leave(self, party: Party) -> None:
        self._parties.discard(party)
        # It is remembered for a while with the calls that it gave up, and with it what it holds.
        party.standalone.drop()
        for call in list(party.calls.values()):
            self.leave_call(call)
        for id, question in list(self._asked.items()):
            if question.party is party:
                del self._asked[id]
                self._say(_nobody_to_ask(id))

    async def call(self, request: Message, party: Party | None = None) -> Call:
        """Sends a request. Raises `Fault` if it was not sent."""
        if len(self._calls) >= MAX_CALLS:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_requests_in_flight")
        self._last_id += 1
        call = Call(request, self._last_id, party, on_taken=self._readers.caught_up, on_close=self.leave_call)
        outgoing, call.token = multiplex.renumbered(request, call.id)
        call.heard_at = self._loop.time()
        self._calls[call.id] = call
        if party is not None:
            party.calls[call.client_id] = call
        self._look_later()
        try:
            await self._carry(outgoing, call)
        except BaseException:
            self.leave_call(call)
            raise
        call.is_sent = True
        return call

    async def send(self, message: Message, party: Party) -> None:
        """A notification, or an answer to a question; what is about nothing that this party has is dropped."""
        if message.is_response:
            await self._answer(message, party)
            return
        if message.method == Method.CANCELLED:
            named = multiplex.request_named_by(message)
            call = party.calls.get(named) if named is not None else None
            if call is None:
                # It was cancelled when its stream was closed, or is answered by now.
                return
            call.is_cancelled = True
            message = multiplex.with_request_named(message, call.id)
        elif message.method == Method.INITIALIZED:
            if self.is_initialized:
                return
            self.is_initialized = True
        elif message.method == Method.PROGRESS and not self._is_asked(party, multiplex.token_of(message)):
            self._drop("progress of nothing that was asked", message)
            return
        await self._carry(message)

    def _is_asked(self, party: Party, token: RequestId | None) -> bool:
        """Something that wants to hear of progress under this token."""
        return token is not None and any(
            asked.party is party and asked.token == token and type(asked.token) is type(token)
            for asked in self._asked.values()
        )

    async def _answer(self, answer: Message, party: Party) -> None:
        question = self._asked.get(answer.id) if answer.id is not None else None
        if question is None or question.party is not party:
            self._drop("an answer to no question", answer)
            return
        await self._carry(answer)
        # Not before: one that was not taken may be given again.
        self._asked.pop(question.id, None)

    def leave_call(self, call: Call) -> None:
        """Nobody waits for it any more; the server is told, if it does not know."""
        if self._calls.pop(call.id, None) is None:
            return
        self._forget(call)
        # Whoever else reads it must not take this for a proper end.
        call.end(Fault(FaultKind.OUTCOME_UNKNOWN, reason="given_up", sent=True))
        if call.is_sent and not call.is_subscription:
            self._given_up.add(call, self._loop.time())
        if call.is_sent and not call.is_cancelled and not call.is_handshake:
            params = {"requestId": call.id, "reason": "nobody waits for the answer"}
            self._say(jsonrpc.notification(Method.CANCELLED, params))

    async def _settle(self) -> None:
        """Ends what runs here, when nothing is carried any more."""
        if self._look is not None:
            self._look.cancel()
        await self._tasks.aclose(1.0)

    # What the server says.

    def _hear(self, raw: bytes) -> None:
        try:
            messages = messages_of(raw)
        except Fault as fault:
            garbage = Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_sent_garbage", sent=True)
            self._garbage(raw, str(fault.__cause__ or fault), garbage)
            return
        for message in messages:
            self._deliver(message)

    def _garbage(self, line: bytes, why: str, fault: Fault, *, is_cut: bool = False) -> None:
        self._counters.garbage_lines += 1
        log.warning(
            "upstream %s: something that is not a message is dropped (%s): %s",
            self.name,
            why,
            shown(line, 200),
        )
        call = self._answered_by(line, is_cut)
        if call is not None:
            self._fail(call, fault)

    def _answered_by(self, garbage: bytes, is_cut: bool) -> Call | None:
        """The call that a broken line was most likely the answer to: without it, that one would wait in vain."""
        if tells_or_asks(garbage) or garbage[:1] != b"{":
            return None
        found = _ID_AT_THE_START.match(garbage)
        id = int(found[1]) if found else jsonrpc.readable_id(garbage)
        if id is None and is_cut:
            # Some servers write the id last.
            return self._only_one()
        return self._calls.get(id) if isinstance(id, int) else None

    def _deliver(self, message: Message) -> None:
        if message.is_response:
            self._respond(message)
        elif message.is_request:
            self._ask(message)
        elif message.method == Method.PROGRESS:
            self._progress(message)
        elif message.method == Method.CANCELLED:
            self._withdraw(message)
        else:
            self._notify(message)

    def _respond(self, response: Message) -> None:
        if response.id is None:
            call = self._only_one()
        else:
            call = self._calls.get(response.id) if isinstance(response.id, int) else None
        if call is None:
            # Also what comes for a call that was cancelled.
            self._given_up.answered(response.id)
            self._drop("an answer to no request", response)
            return
        del self._calls[call.id]
        self._forget(call)
        answer = response.with_id(call.client_id)
        if call.is_subscription and multiplex.subscription_of(answer) is not None:
            answer = multiplex.with_subscription(answer, call.client_id)
        call.put(answer)
        call.end()

    def _progress(self, progress: Message) -> None:
        token = multiplex.token_of(progress)
        call = self._calls.get(token) if isinstance(token, int) else None
        if call is None or call.token is None or call.is_handshake:
            self._drop("progress of no running request", progress)
        else:
            self._to_call(call, multiplex.with_token(progress, call.token))

    def _notify(self, notification: Message) -> None:
        subscription = multiplex.subscription_of(notification)
        if subscription is not None:
            call = self._calls.get(subscription) if isinstance(subscription, int) else None
            if call is None or not call.is_subscription:
                self._drop("news of no subscription", notification)
            else:
                self._to_call(call, multiplex.with_subscription(notification, call.client_id))
            return
        where = self._whose()
        if isinstance(where, Call):
            self._to_call(where, notification)
        elif where is not None:
            self._readers.put(where.standalone, notification)
        elif notification.method in _ANYBODYS and self._parties:
            for party in self._parties:
                self._readers.put(party.standalone, notification)
        else:
            self._drop("what could be anybody's", notification)

    def _whose(self) -> Call | Party | None:
        """Whom a message concerns that does not say so: the one call that runs, or the one party there is."""
        running = self._running()
        given_up = self._given_up.parties(self._loop.time())
        parties = {call.party for call in running} | given_up
        if len(parties or self._parties) != 1 or None in given_up:
            # Modern requests are of nobody in particular: one that was given up may have been anybody's.
            return None
        if len(running) == 1:
            return running[0]
        party = next(iter(parties or self._parties))
        return party if party in self._parties else None

    def _running(self) -> list[Call]:
        return [call for call in self._calls.values() if not call.is_subscription and not call.is_handshake]

    def _only_one(self) -> Call | None:
        where = self._whose()
        return where if isinstance(where, Call) else None

    def _to_call(self, call: Call, message: Message) -> None:
        call.has_begun = True
        call.heard_at = self._loop.time()
        self._readers.put(call, message)

    # Questions of the server's.

    def _ask(self, request: Message) -> None:
        assert request.id is not None
        if request.method == Method.PING:
            self._say(jsonrpc.result(request.id, {}))
            return
        where = self._whose()
        party = where.party if isinstance(where, Call) else where
        if party is None:
            # A modern server must not ask; one that several sessions share cannot be told which of them it means.
            self._drop("a question to nobody in particular", request)
            self._say(_nobody_to_ask(request.id))
            return
        inbox = where if isinstance(where, Call) else party.standalone
        if inbox.is_full:
            self._counters.dropped_messages += inbox.shed()
        if len(self._asked) >= MAX_QUESTIONS or inbox.is_full or request.id in self._asked:
            self._say(jsonrpc.error(request.id, Fault(FaultKind.OVER_CAPACITY).error()))
            return
        token = progress_token(request)
        self._asked[request.id] = Question(request.id, party, inbox, self._loop.time(), token)
        if isinstance(where, Call):
            self._to_call(where, request)
        else:
            self._readers.put(inbox, request)
        self._look_later()

    def _withdraw(self, cancelled: Message) -> None:
        id = multiplex.request_named_by(cancelled)
        question = self._asked.pop(id, None) if id is not None else None
        if question is None:
            self._drop("a cancellation of nothing", cancelled)
            return
        # On the call that it was asked on, or after that has ended, where its session hears of it all the same.
        where = question.inbox
        if isinstance(where, Call) and where.id not in self._calls:
            where = question.party.standalone
        self._readers.put(where, cancelled)

    # Time.

    def _look_later(self) -> None:
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_S, self._look_after)

    def _look_after(self) -> None:
        self._look = None
        now = self._loop.time()
        call_s = math.inf if self._limits.call_s is None else self._limits.call_s
        for question in self._asked.values():
            if isinstance(question.inbox, Call):
                # The server waits for the client: it has said what it had to say.
                question.inbox.heard_at = now
        for call in list(self._calls.values()):
            if now - call.heard_at >= call_s and not call.is_subscription:
                reason = "gap" if call.has_begun else "head"
                call.end(Fault(FaultKind.DEADLINE, reason=reason, sent=call.is_sent))
        for id, question in list(self._asked.items()):
            if now - question.asked_at >= self._limits.question_s:
                del self._asked[id]
                fault = Fault(FaultKind.DEADLINE, reason="client_did_not_answer", side=Side.DOWNSTREAM)
                self._say(jsonrpc.error(id, fault.error()))
        if (self._calls or self._asked) and not self.is_gone:
            self._look_later()

    # Its end.

    def _over(self, fault: Fault | None = None) -> None:
        """Nothing is carried any more, either way. `fault`: why not, if it is not just over."""
        self._readers.read_on()
        fault = fault or Fault(FaultKind.OUTCOME_UNKNOWN, self.told, reason=self.ended, sent=True)
        for call in list(self._calls.values()):
            self._fail(call, fault)
        for party in self._parties:
            party.standalone.end()
        self._asked.clear()

    def _fail(self, call: Call, fault: Fault) -> None:
        del self._calls[call.id]
        self._forget(call)
        call.end(fault)

    def _refuse(self, call: Call, fault: Fault) -> None:
        """The server did not take it after all."""
        if call.id in self._calls:
            self._fail(call, fault)

    def _forget(self, call: Call) -> None:
        self._readers.caught_up(call)
        if call.party is not None and call.party.calls.get(call.client_id) is call:
            del call.party.calls[call.client_id]

    # What is said from here.

    def _say(self, message: Message) -> None:
        try:
            if self._carry_nowait(message):
                return
        except Fault:
            return
        if len(self._tasks) < MAX_SAYING:
            self._tasks.spawn(self._say_later(message), "say")
        else:
            self._drop("what the server does not take", message)

    async def _say_later(self, message: Message) -> None:
        try:
            await self._carry(message)
        except Fault as fault:
            log.debug("upstream %s: what was said from here did not reach it: %s", self.name, fault.reason)

    def _drop(self, what: str, message: Message) -> None:
        self._counters.dropped_messages += 1
        log.debug("upstream %s: dropped %s: %r", self.name, what, message)


def _nobody_to_ask(id: RequestId) -> Message:
    fault = Fault(FaultKind.METHOD_NOT_FOUND, "There is no client to ask", reason="nobody_to_ask")
    return jsonrpc.error(id, fault.error())
