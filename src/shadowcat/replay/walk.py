"""Walks through one recorded session, playing its client."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from shadowcat.aio import Tasks
from shadowcat.core.annotations import ToolHeaders
from shadowcat.core.exchange import Answer, Forwarded, MessageStream
from shadowcat.core.multiplex import request_named_by, with_request_named
from shadowcat.core.negotiate import repeated_of
from shadowcat.core.ports import Link, Upstream
from shadowcat.errors import Fault, FaultKind
from shadowcat.replay.inbox import Inbox
from shadowcat.replay.live import Live, belongs_to_request
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.recorded import RecordedSession, Recording, Step
from shadowcat.replay.told import compared, named
from shadowcat.wire import jsonrpc, tape
from shadowcat.wire.jsonrpc import Kind, Message, RequestId
from shadowcat.wire.mcp import Method
from shadowcat.wire.tape import Frame
from shadowcat.wire.text import counted

log = logging.getLogger("shadowcat.replay")

_START_S = 60.0
"""How long a command may take to say anything, if an answer may not take longer."""
_NO_SUCH = {"code": -32601, "message": "The client on the tape was not asked this"}


class Walk:
    def __init__(
        self,
        recording: Recording,
        session: RecordedSession,
        upstream: Upstream,
        options: ReplayOptions,
        differs: Callable[[str], object],
        uncompared: Callable[[str], object],
        *,
        is_command: bool,
    ) -> None:
        """`differs` hears of each difference, `uncompared` of each request whose answers cannot be compared.

        `is_command` says that the server is one, which is started for this.
        """
        self._recording = recording
        self._session = session
        self._upstream = upstream
        self._options = options
        self._differs = differs
        self._uncompared = uncompared
        self._is_command = is_command
        self._is_starting = is_command
        """Until it has said something: what its start takes is no part of what an answer may take."""
        self._limit: asyncio.Timeout | None = None
        self._tasks = Tasks("replay")
        self._live: dict[int, Live] = {}
        self._ids = itertools.count(1)
        self._by_recorded_id: dict[RequestId, Live] = {}
        self._exchanges = iter(session.exchanges)
        self._asked: Counter[str] = Counter()
        """How often the server has asked what, this time."""
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
        for live in self._live.values():
            if not live.exchange.is_cancelled and live.exchange.method != Method.LISTEN:
                self._uncompared(f"{named(live.request)}: not compared, the tape has no answer to it")
        for message in self.inbox.left():
            # No difference: whether it came before the client left is a matter of milliseconds.
            log.info("%s came, which is not on the tape", message.method)

    async def aclose(self) -> None:
        await self._tasks.aclose()

    async def _pace(self, ms: float) -> None:
        if self._options.speed:
            await asyncio.sleep(self._options.pause_s(ms))

    # What the client said.

    async def _say(self, step: Step, frame: Frame) -> None:
        message = frame.delivered()
        if frame.parsed().is_request:
            exchange = next(self._exchanges)
            if message is None:
                return  # an interceptor refused it: the server never saw it
            live = Live(exchange, message.with_id(next(self._ids)), self._heard_other, self._said)
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
            failed = self._live.pop(step.request or 0, None)
            if failed is not None:
                # For what the client says next to come after it, as it did then.
                await self._within(failed.wait_over())
                self._uncompared(f"{named(failed.request)}: not compared, on the tape the proxy answered it")
            return
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

    def _heard_other(self, message: Message) -> None:
        """What belongs to no request of the client's. Raises `Fault` where there is too much of it."""
        if message.is_request:
            self._asked[message.method] += 1
            if self._asked[message.method] > self._session.questions[message.method]:
                # The tape has no answer to it, and the server waits for one.
                self._differs(f"{message.method}: asked by the server, and not on the tape")
                self._tasks.spawn(self._send(jsonrpc.error(message.id, _NO_SUCH)), "refuse")
                return
        self.inbox.put(message)

    async def _hear_other(self, step: Step, message: Message) -> None:
        """A question, or what is told of its own accord."""
        if not await self._within(self.inbox.come(step.seq, message)):
            self._differs(f"{message.method}: expected, did not come")
            return
        got = self._recording.without_secrets(self.inbox.last)
        for told in compared(self._recording.likeness, [message], [got]):
            self._differs(told.removeprefix(" "))

    async def _within(self, waiting: Coroutine[Any, Any, object]) -> bool:
        wait_s = self._options.wait_s
        try:
            async with asyncio.timeout(max(wait_s, _START_S) if self._is_starting else wait_s) as self._limit:
                await waiting
        except TimeoutError:
            return False
        finally:
            self._limit = None
        return True

    def _said(self) -> None:
        was_starting, self._is_starting = self._is_starting, False
        # One that has expired still has to interrupt what waits, and cannot be put off.
        if was_starting and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._options.wait_s)

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
            self._tasks.spawn(live.ask(partial(self._link.exchange, live.request)), "ask")
            return
        self._link, answer = await self._upstream.open(live.request)
        await live.ask(partial(_given, answer))

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
                    self._heard_other(message)
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

    def __init__(self, *given: Any, is_command: bool) -> None:
        super().__init__(*given, is_command=is_command)
        self._tools = ToolHeaders()
        for exchange in self._session.of_method(Method.TOOLS_LIST):
            for step in exchange.steps:
                if step.kind == "result":
                    self._tools.learn(self._recording.frame(step).parsed())
        self._unknown = 0
        """Calls before any list of tools."""

    async def run(self) -> None:
        await super().run()
        if self._unknown and not self._is_command:
            log.warning(
                "%s went without the Mcp-Param-* headers that some tools ask for: "
                "neither the tape nor the server has said which those are",
                counted(self._unknown, "call"),
            )

    async def _ask(self, live: Live) -> None:
        request = live.request
        repeated: Forwarded = ()
        if request.method == Method.TOOLS_CALL:
            repeated = tuple(self._tools.headers_of(request))
            self._unknown += not self._tools.has_any
        ask = partial(self._upstream.exchange, request, repeated_of(request) + repeated)
        self._tasks.spawn(live.ask(ask), "ask")

    def _compare(self, live: Live) -> None:
        super()._compare(live)
        if live.request.method == Method.TOOLS_LIST and live.got and live.got[-1].is_response:
            # What this server wants repeated counts, and not what the one on the tape did.
            self._tools.learn(live.got[-1])

    async def _send(self, message: Message) -> None:
        """Over HTTP a modern client sends nothing but requests."""


async def _given(answer: Message) -> Answer:
    return Answer(whole=answer)


def _kind(answer: Message) -> str:
    return "an error" if answer.kind is Kind.ERROR else "a result"
