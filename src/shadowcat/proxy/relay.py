"""The gateway: opens sessions, finds them, and passes modern exchanges through."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial

import msgspec

from shadowcat.aio import Deadline
from shadowcat.core.exchange import (
    Answer,
    Caller,
    Context,
    Direction,
    Elsewhere,
    Forwarded,
    MessageStream,
    Reply,
)
from shadowcat.core.negotiate import routing_of
from shadowcat.core.ports import ClientSession, Link
from shadowcat.core.session import SessionRecord, promise_of
from shadowcat.core.statistics import Answers
from shadowcat.errors import Fault, FaultKind, Side, proxy_stops
from shadowcat.proxy.ending import PROXY_STOPPED, EndingStream, Running
from shadowcat.proxy.pipeline import Undecided
from shadowcat.proxy.registry import UPSTREAMS_S, Registry
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import Phase, Shared
from shadowcat.proxy.subscription import Subscription
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import LATEST_LEGACY, MODERN_VERSIONS, Era, Header, Method

_LAST_WORDS_S = 0.2
_CANCEL_S = 1.0
MAX_INITIALIZE_BYTES = 256 * 1024
"""Of parameters that are kept for as long as the session: to open it again at the upstream."""


class Relay:
    """Implements `core.ports.Gateway`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.sessions = Registry(shared)
        self.at_hand = self.sessions.at_hand
        self._subscriptions: set[Subscription] = set()
        self._running = Running()

    def start(self) -> None:
        self._shared.tasks.spawn(self.sessions.watch(), "expire idle sessions")
        store, writer = self._shared.store, self._shared.writer
        if store is not None and writer is not None:
            self._shared.tasks.spawn(writer.run(), "write to the store")
            self._shared.tasks.spawn(self.sessions.watch_store(store), "expire stored sessions")
            self._shared.tasks.spawn(self.sessions.watch_removals(store), "hear of removed sessions")
        if self._shared.lease is not None:
            self._shared.tasks.spawn(self._shared.lease.keep(self.sessions.doubt), "keep the lease")

    async def aclose(self, deadline: Deadline) -> None:
        await self.sessions.close(deadline)
        await self._shared.tasks.aclose(deadline.left(_CANCEL_S, but_for_s=UPSTREAMS_S))

    # Legacy.

    async def open(self, initialize: Message, caller: Caller, address: str) -> tuple[Session | None, Message]:
        """A session exists once the upstream has said yes, and not before."""
        assert initialize.id is not None
        if len(initialize.raw_params) > MAX_INITIALIZE_BYTES:
            raise Fault(FaultKind.INVALID_PARAMS, "The parameters of initialize are too long")
        client_id = initialize.id
        session_id = secrets.token_hex(16)
        place = self.sessions.reserve(address)
        try:
            judged = await self._judged(
                initialize,
                Era.LEGACY,
                Direction.TO_SERVER,
                caller,
                self._shared.upstreams.name_for(caller),
                initialize,
                session_id,
            )
            if isinstance(judged, Reply):
                return None, judged.message.with_id(client_id)
            outgoing = _legacy_only(judged).with_id(0)
            try:
                upstream, (link, answer) = await self._running.until(
                    self._shared.upstreams.first_reachable(lambda upstream: upstream.open(outgoing), caller)
                )
            except Fault as fault:
                self._failed(Era.LEGACY, caller, initialize, fault, session_id)
                raise
            session: Session | None = None
            try:
                judged = await self._judged(
                    answer.with_id(client_id),
                    Era.LEGACY,
                    Direction.TO_CLIENT,
                    caller,
                    upstream.name,
                    initialize,
                    session_id,
                )
                answer = judged.message if isinstance(judged, Reply) else judged
                if answer.kind is not Kind.ERROR:
                    record = self._record(session_id, outgoing, answer, link, upstream.name, caller)
                    session = await self.sessions.add(record, link, place)
                return session, answer
            finally:
                if session is None:
                    # Opened up there and refused down here: nobody will ever use it.
                    self._shared.tasks.spawn(link.end(), "end what was not wanted")
        finally:
            self.sessions.release(place)

    def _record(
        self, id: str, initialize: Message, answer: Message, link: Link, upstream: str, caller: Caller
    ) -> SessionRecord:
        return SessionRecord(
            id=id,
            principal=caller.principal,
            route=caller.route,
            upstream=upstream,
            upstream_id=link.upstream_id,
            version=promise_of(answer).protocol_version,
            initialize_params=initialize.raw_params,
            initialize_result=answer.raw_result,
            created_wall=self._shared.clock.wall(),
            epoch=secrets.token_urlsafe(9),
        )

    async def find(self, session_id: str, caller: Caller) -> Session | Elsewhere | None:
        return await self.sessions.find(session_id, caller)

    async def end(self, session: ClientSession) -> None:
        assert isinstance(session, Session)
        await self.sessions.end(session)

    # Modern.

    async def exchange(self, request: Message, caller: Caller, forwarded: Forwarded, address: str) -> Answer:
        """Stateless: the client's upstream, or any that can be reached. Nothing is kept, nothing is sent twice."""
        self._shared.counters.exchanges += 1
        only = self._shared.upstreams.name_for(caller)
        judged = await self._judged(request, Era.MODERN, Direction.TO_SERVER, caller, only, request)
        if isinstance(judged, Reply):
            return Answer(whole=judged.message.with_id(request.id))
        if judged is not request:
            forwarded = _renamed(request, judged, forwarded)
        sent_at = self._shared.clock.monotonic()
        try:
            upstream, answer = await self._running.until(
                self._shared.upstreams.first_reachable(
                    lambda upstream: upstream.exchange(judged, forwarded),
                    caller,
                    before=self._shared.upstreams.of_client(address),
                )
            )
            if answer.stream is not None and request.method == Method.LISTEN:
                answer.stream = await self._subscribed(request, answer.stream)
        except Fault as fault:
            self._failed(Era.MODERN, caller, request, fault)
            raise
        # Looked up while it is known: one that a client has named may be forgotten before its stream ends.
        timed = partial(self._timed, self._shared.upstreams.answers_of(upstream.name), sent_at)
        if answer.whole is not None:
            timed(answer.whole)
        elif answer.stream is not None:
            is_call = request.method != Method.LISTEN
            silent_s = self._shared.limits.call_s if is_call else None
            on_failed = partial(self._shared.upstreams.failed, upstream.name)
            answer.stream = EndingStream(
                answer.stream, request, self._running, silent_s, on_failed, timed if is_call else None
            )
        if self._shared.pipeline:
            if answer.whole is not None:
                answer.whole = await self._to_client(
                    answer.whole, caller, upstream.name, request, answer.status
                )
            elif answer.stream is not None:
                answer.stream = _JudgedStream(self, answer.stream, caller, upstream.name, request)
        return answer

    def _timed(self, answers: Answers, sent_at: float, answer: Message) -> None:
        answers.came(self._shared.clock.monotonic() - sent_at, answer.kind is Kind.ERROR)

    async def _subscribed(self, request: Message, stream: MessageStream) -> Subscription:
        if self._shared.phase is Phase.DRAINING:
            # Those that had begun were ended already: the drain would wait for this one in vain.
            await stream.aclose()
            raise proxy_stops()
        subscription = Subscription(request, stream, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    async def begin_to_leave(self) -> None:
        """Ends the streams that would never end by themselves; those that answer a call go on to their end."""
        for session in self.sessions:
            session.parting.stop_listening()
        for subscription in tuple(self._subscriptions):
            subscription.end()
        if self._shared.lease is not None:
            self._shared.tasks.spawn(self.sessions.hand_over(), "hand sessions over")

    async def part(self) -> None:
        """Ends what still runs: calls that another process can go on with are left to it, the others told so."""
        self._running.end()
        for session in self.sessions:
            session.parting.give_up_what_ends_here()
        # For what was said just now to reach the clients, before they are sent away.
        await asyncio.sleep(_LAST_WORDS_S)
        for session in self.sessions:
            session.core.book.part()

    async def judged_batch(
        self, batch: list[Message], caller: Caller, upstream: str, request: Message
    ) -> list[Message]:
        judged: list[Message] = []
        for message in batch:
            try:
                judged.append(await self._to_client(message, caller, upstream, request))
            except Fault as fault:
                if message.is_response:
                    judged.append(jsonrpc.error(request.id, fault.error()))
                else:
                    self._shared.counters.dropped_messages += 1
        return judged

    async def _to_client(
        self, message: Message, caller: Caller, upstream: str, request: Message, status: int = 200
    ) -> Message:
        judged = await self._judged(
            message, Era.MODERN, Direction.TO_CLIENT, caller, upstream, request, status=status
        )
        return judged.message if isinstance(judged, Reply) else judged

    async def _judged(
        self,
        message: Message,
        era: Era,
        direction: Direction,
        caller: Caller,
        upstream: str,
        request: Message,
        session_id: str | None = None,
        status: int = 200,
    ) -> Message | Reply:
        """The message as the interceptors leave it; `request` is itself, or what it comes back for."""
        pipeline = self._shared.pipeline
        steps = pipeline.steps(message.kind, message.method or request.method, direction)
        if not steps and not pipeline.is_tapped:
            return message
        asked = None if message is request else request
        context = Context(
            era, direction, caller, upstream, session_id, asked, status, introduction=request.raw_params
        )
        if steps:
            judged = pipeline.begin(message, context, steps)
            return await self._decided(judged, message, context) if isinstance(judged, Undecided) else judged
        pipeline.tell(message, context)
        return message

    async def _decided(self, judged: Undecided, message: Message, context: Context) -> Message | Reply:
        """As long as there is time: somebody may hold the message."""
        try:
            return await self._running.until(judged.outcome())
        except Fault as fault:
            if fault.reason == PROXY_STOPPED:
                # It may not have been begun with.
                judged.let_go()
                if message.is_response:
                    self._shared.pipeline.failed(context, fault)
            raise

    def _failed(
        self, era: Era, caller: Caller, request: Message, fault: Fault, session_id: str | None = None
    ) -> None:
        """Tells the taps of a request that no upstream answered."""
        if self._shared.pipeline:
            context = Context(era, Direction.TO_CLIENT, caller, "", session_id, request)
            self._shared.pipeline.failed(context, fault)


def _renamed(request: Message, judged: Message, forwarded: Forwarded) -> Forwarded:
    """The routing headers of a request that an interceptor changed: they repeat its body, whatever it says now.

    Which argument a `Mcp-Param-…` header repeats only the server's tool says. So arguments that one may repeat cannot
    be changed: a server would be told one thing by the header, and another by the body. Raises `Fault`.
    """
    repeats = any(name.startswith(Header.PARAM_PREFIX) for name, _ in forwarded)
    if repeats and judged.params().get("arguments") != request.params().get("arguments"):
        raise Fault(FaultKind.INTERNAL, reason="interceptor_changed_what_a_header_repeats", side=Side.OURS)
    kept = tuple(field for field in forwarded if field[0] not in (Header.METHOD, Header.NAME))
    return kept + routing_of(judged)


class _JudgedStream:
    """A stream whose messages pass the interceptors, one by one."""

    cursor = None

    def __init__(
        self, relay: Relay, stream: MessageStream, caller: Caller, upstream: str, request: Message
    ) -> None:
        self._relay = relay
        self._stream = stream
        self._caller = caller
        self._upstream = upstream
        self._request = request

    def __aiter__(self) -> _JudgedStream:
        return self

    async def __anext__(self) -> list[Message]:
        batch = await anext(self._stream)
        return await self._relay.judged_batch(batch, self._caller, self._upstream, self._request)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _legacy_only(initialize: Message) -> Message:
    """The modern version cannot be agreed on by `initialize`: the newest that can is asked for instead."""
    params = initialize.param_members()
    version = params.get("protocolVersion")
    if version is None or msgspec.json.decode(version) not in MODERN_VERSIONS:
        return initialize
    params["protocolVersion"] = msgspec.Raw(msgspec.json.encode(LATEST_LEGACY))
    return initialize.with_params(msgspec.Raw(msgspec.json.encode(params)))
