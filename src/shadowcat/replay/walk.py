"""One recorded session walked through, its client played."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Answer, Forwarded, MessageStream
from shadowcat.core.multiplex import request_named_by, with_request_named
from shadowcat.core.ports import Link, Upstream
from shadowcat.errors import Fault, FaultKind
from shadowcat.replay.inbox import Inbox
from shadowcat.replay.live import Live, belongs_to_request
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.recorded import RecordedSession, Recording, Step
from shadowcat.replay.told import compared, name_in, named
from shadowcat.wire import jsonrpc, tape
from shadowcat.wire.headers import encode_value
from shadowcat.wire.jsonrpc import Kind, Message, RequestId
from shadowcat.wire.mcp import Header, Meta, Method
from shadowcat.wire.tape import Frame

log = logging.getLogger("shadowcat.replay")

_NO_SUCH = {"code": -32601, "message": "The client on the tape was not asked this"}


class Walk:
    def __init__(
        self,
        recording: Recording,
        session: RecordedSession,
        upstream: Upstream,
        options: ReplayOptions,
        differs: Callable[[str], object],
    ) -> None:
        self._recording = recording
        self._session = session
        self._upstream = upstream
        self._options = options
        self._differs = differs
        self._tasks = Tasks("replay")
        self._live: dict[int, Live] = {}
        self._ids = itertools.count(1)
        self._by_recorded_id: dict[RequestId, Live] = {}
        self._exchanges = iter(session.exchanges)
        self.inbox = Inbox(recording)
        self.exchanges = 0
        self.is_heard = False
        """Whether the server has said anything."""

    async def run(self) -> None:
        before_ms = self._session.steps[0].ms
        for step in self._session.steps:
            await self._pace(step.ms - before_ms)
            before_ms = step.ms
            frame = self._recording.frame(step)
            if step.is_up:
                await self._say(step, frame)
            else:
                await self._hear(step, frame)
        for message in self.inbox.left():
            # No difference: whether it came before the client left is a matter of milliseconds.
            log.info("%s came, which is not on the tape", message.method)

    async def aclose(self) -> None:
        await self._tasks.aclose()

    async def _pace(self, ms: float) -> None:
        if self._options.speed and ms > 0:
            await asyncio.sleep(ms / 1_000 / self._options.speed)

    # What the client said.

    async def _say(self, step: Step, frame: Frame) -> None:
        message = frame.delivered()
        if frame.parsed().is_request:
            exchange = next(self._exchanges)
            if message is None:
                return  # an interceptor refused it: the server never saw it
            live = Live(exchange, message.with_id(next(self._ids)), self.inbox.put)
            self._live[step.seq] = live
            if message.id is not None:
                self._by_recorded_id[message.id] = live
            self.exchanges += 1
            await self._ask(live)
        elif message is not None and message.is_response:
            await self._answer(frame, message)
        elif message is not None:
            await self._notify(message)

    async def _ask(self, live: Live) -> None:
        raise NotImplementedError

    async def _send(self, message: Message) -> None:
        raise NotImplementedError

    async def _answer(self, frame: Frame, message: Message) -> None:
        id = self.inbox.id_of(frame.request or 0)
        if id is not None:
            await self._send(message.with_id(id))

    async def _notify(self, message: Message) -> None:
        if message.method == Method.CANCELLED:
            live = self._by_recorded_id.get(request_named_by(message) or "")
            if live is None or live.request.id is None:
                return
            message = with_request_named(message, live.request.id)
        await self._send(message)

    # What the server said.

    async def _hear(self, step: Step, frame: Frame) -> None:
        if frame.outcome == tape.FAILED:
            return  # the proxy said it
        message = frame.parsed()
        if not belongs_to_request(message):
            await self._hear_other(step, message)
            return
        live = self._live.get(step.request or 0)
        if live is None:
            return
        live.expected.append(message)
        if message.is_response:
            await self._within(live.wait_over())
            self._compare(live)
            self._live.pop(step.request or 0)
        else:
            await self._within(live.come_to(len(live.expected)))

    async def _hear_other(self, step: Step, message: Message) -> None:
        """A question, or what is told of its own accord."""
        if not await self._within(self.inbox.come(step.seq, message)):
            self._differs(f"{message.method}: expected, did not come")
            return
        got = self._recording.without_secrets(self.inbox.last)
        for told in compared(self._recording.likeness, [message], [got]):
            self._differs(told.removeprefix(" "))

    async def _within(self, waiting: Coroutine[Any, Any, object]) -> bool:
        try:
            async with asyncio.timeout(self._options.wait_s):
                await waiting
        except TimeoutError:
            return False
        return True

    # Comparing.

    def _compare(self, live: Live) -> None:
        name = named(live.request)
        self.is_heard = self.is_heard or bool(live.got)
        if live.fault is not None:
            if live.fault.kind is FaultKind.UPSTREAM_UNAVAILABLE and not self.is_heard:
                raise live.fault
            self._differs(f"{name}: expected {_kind(live.expected[-1])}, got none ({live.fault.message})")
            return
        if not live.is_over:
            self._differs(
                f"{name}: expected {_kind(live.expected[-1])}, got none in {self._options.wait_s:g} s"
            )
            return
        got = [self._recording.without_secrets(message) for message in live.got]
        for line in compared(self._recording.likeness, live.expected, got):
            self._differs(f"{name}{line}")


class SessionWalk(Walk):
    """A legacy session: opened, used, ended."""

    _link: Link | None = None

    async def _ask(self, live: Live) -> None:
        if live.request.method != Method.INITIALIZE:
            assert self._link is not None
            self._tasks.spawn(live.ask(self._link.exchange(live.request)), "ask")
            return
        self._link, answer = await self._upstream.open(live.request)
        await live.ask(_given(answer))

    async def _send(self, message: Message) -> None:
        assert self._link is not None
        await self._link.send(message)
        if message.method == Method.INITIALIZED and self._session.hears_more_than_answers:
            self._tasks.spawn(self._listen(self._link), "listen")

    async def _listen(self, link: Link) -> None:
        """What came on an answer's stream then may come on the session's own now."""
        try:
            stream = await link.listen()
            if stream is not None:
                await self._hear_all(stream)
        except Fault as fault:
            log.warning("nothing more is heard on the session's own stream: %s", fault.message)

    async def _hear_all(self, stream: MessageStream) -> None:
        try:
            async for batch in stream:
                for message in batch:
                    self.inbox.put(message)
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        for message in self.inbox.left():
            if self._link is not None and message.is_request:
                await self._link.send(jsonrpc.error(message.id, _NO_SUCH))
        await super().aclose()
        if self._link is not None:
            await self._link.end()


class StatelessWalk(Walk):
    """What passed without a session: each request carries all that it needs."""

    async def _ask(self, live: Live) -> None:
        asking = self._upstream.exchange(live.request, _routing(live.request))
        self._tasks.spawn(live.ask(asking), "ask")

    async def _send(self, message: Message) -> None:
        """Over HTTP a modern client sends nothing but requests."""


async def _given(answer: Message) -> Answer:
    return Answer(whole=answer)


def _kind(answer: Message) -> str:
    return "an error" if answer.kind is Kind.ERROR else "a result"


def _routing(request: Message) -> Forwarded:
    """The headers that repeat a modern request's body."""
    version = request.params().get("_meta", {}).get(Meta.PROTOCOL_VERSION)
    fields = ((Header.PROTOCOL_VERSION, str(version).encode()), (Header.METHOD, request.method.encode()))
    name = name_in(request)
    return fields if name is None else (*fields, (Header.NAME, encode_value(name)))
