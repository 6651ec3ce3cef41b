"""A server that misbehaves on purpose: wraps an upstream, and loses, delays and breaks what passes.

It stands where the proxy meets the server, because that is where most of this can happen: an interceptor sees messages
and no connections. What is chosen depends on the seed and on the order of the requests, and on nothing else: each
request, and each stream, draws from a sequence of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Annotated, Any

from msgspec import Meta, Struct

from shadowcat.core.exchange import Answer, Forwarded, MessageStream
from shadowcat.core.ports import Link, Upstream
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message


class FaultOptions(Struct, frozen=True, kw_only=True):
    seed: Annotated[int, Meta(description="The same seed causes the same faults for the same requests.")] = 0
    delay_chance: Annotated[
        float, Meta(ge=0, le=1, description="The share of requests that are delayed.")
    ] = 0.0
    delay_s: Annotated[float, Meta(ge=0, le=3_600, description="How long a delayed request waits.")] = 1.0
    refuse_chance: Annotated[
        float,
        Meta(ge=0, le=1, description="The share of requests that find no server (503, nothing was sent)."),
    ] = 0.0
    fail_chance: Annotated[
        float, Meta(ge=0, le=1, description="The share of requests that the server fails on, as with a 500.")
    ] = 0.0
    expire_chance: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The share of requests that find their session forgotten by the server (404).",
        ),
    ] = 0.0
    drop_chance: Annotated[
        float, Meta(ge=0, le=1, description="The share of notifications that are lost.")
    ] = 0.0
    duplicate_chance: Annotated[
        float, Meta(ge=0, le=1, description="The share of notifications that come twice.")
    ] = 0.0
    reorder_chance: Annotated[
        float,
        Meta(
            ge=0, le=1, description="The share of a stream's notifications that come after the next message."
        ),
    ] = 0.0
    cut_after: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="After how many messages each stream of the server breaks for good."),
    ] = None
    read_pause_s: Annotated[
        float, Meta(ge=0, le=60, description="How long to wait before each read of a stream: a slow reader.")
    ] = 0.0


class _Chance:
    """Gives the faults of one request or stream."""

    def __init__(self, options: FaultOptions, ordinal: int) -> None:
        self.options = options
        self._random = Random(f"{options.seed}:{ordinal}")

    def happens(self, chance: float) -> bool:
        # Drawn also where nothing can come of it: a chance that is set to 0 must not shift the others.
        return self._random.random() < chance

    async def before(self, *, in_session: bool) -> None:
        """What a request meets on its way. Raises `Fault`."""
        options = self.options
        is_late, is_refused = self.happens(options.delay_chance), self.happens(options.refuse_chance)
        is_failed, is_expired = self.happens(options.fail_chance), self.happens(options.expire_chance)
        if is_late:
            await asyncio.sleep(options.delay_s)
        if is_refused:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, reason="injected_fault")
        if is_failed:
            raise Fault(FaultKind.UPSTREAM_FAILED, reason="injected_fault", sent=True)
        if is_expired and in_session:
            raise Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="injected_fault")


class FaultyUpstream:
    """Implements `core.ports.Upstream`."""

    def __init__(self, inner: Upstream, options: FaultOptions) -> None:
        self.options = options
        """Others may be put in their place, for requests and streams to come."""
        self._inner = inner
        self._ordinal = 0

    @property
    def name(self) -> str:
        return self._inner.name

    def next_chance(self) -> _Chance:
        self._ordinal += 1
        return _Chance(self.options, self._ordinal)

    async def open(self, initialize: Message) -> tuple[Link, Message]:
        await self.next_chance().before(in_session=False)
        link, answer = await self._inner.open(initialize)
        return _FaultyLink(link, self), answer

    def attach(self, upstream_id: str | None, version: str) -> Link:
        return _FaultyLink(self._inner.attach(upstream_id, version), self)

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        chance = self.next_chance()
        await chance.before(in_session=False)
        return _spoiled(await self._inner.exchange(request, forwarded), chance)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _FaultyLink:
    """Implements `core.ports.Link`."""

    def __init__(self, inner: Link, upstream: FaultyUpstream) -> None:
        self._inner = inner
        self._upstream = upstream

    @property
    def upstream_id(self) -> str | None:
        return self._inner.upstream_id

    async def exchange(self, request: Message) -> Answer:
        chance = self._upstream.next_chance()
        await chance.before(in_session=True)
        return _spoiled(await self._inner.exchange(request), chance)

    async def send(self, message: Message) -> None:
        chance = self._upstream.next_chance()
        options = chance.options
        is_lost, is_doubled = chance.happens(options.drop_chance), chance.happens(options.duplicate_chance)
        if message.is_notification and is_lost:
            return
        await self._inner.send(message)
        if message.is_notification and is_doubled:
            await self._inner.send(message)

    async def listen(self) -> MessageStream | None:
        stream = await self._inner.listen()
        return None if stream is None else _FaultyStream(stream, self._upstream.next_chance())

    def resume(self, cursor: bytes, *, standalone: bool) -> MessageStream:
        stream = self._inner.resume(cursor, standalone=standalone)
        return _FaultyStream(stream, self._upstream.next_chance())

    async def detach(self) -> None:
        await self._inner.detach()

    async def end(self) -> None:
        await self._inner.end()


def _spoiled(answer: Answer, chance: _Chance) -> Answer:
    if answer.stream is not None:
        answer.stream = _FaultyStream(answer.stream, chance)
    return answer


class _FaultyStream:
    """Implements `core.exchange.MessageStream`."""

    def __init__(self, inner: MessageStream, chance: _Chance) -> None:
        self._inner = inner
        self._chance = chance
        self._given = 0
        self._late: Message | None = None
        """Waits for the next one to come first."""

    @property
    def cursor(self) -> bytes | None:
        return self._inner.cursor

    def __aiter__(self) -> AsyncIterator[list[Message]]:
        return self

    async def __anext__(self) -> list[Message]:
        options = self._chance.options
        if options.cut_after is not None and self._given >= options.cut_after:
            await self._inner.aclose()
            raise Fault(FaultKind.OUTCOME_UNKNOWN, reason="injected_fault", sent=True)
        if options.read_pause_s:
            await asyncio.sleep(options.read_pause_s)
        try:
            batch = [spoiled for message in await anext(self._inner) for spoiled in self._spoiled(message)]
        except StopAsyncIteration:
            late, self._late = self._late, None
            if late is None:
                raise
            batch = [late]
        if options.cut_after is not None:
            batch = batch[: options.cut_after - self._given]
        self._given += len(batch)
        return batch

    def _spoiled(self, message: Message) -> list[Message]:
        options, happens = self._chance.options, self._chance.happens
        is_lost, is_doubled = happens(options.drop_chance), happens(options.duplicate_chance)
        is_late = happens(options.reorder_chance)
        late, self._late = self._late, None
        if not message.is_notification:
            # What a call waits for is kept: it would wait in vain, and nothing comes behind it.
            return [message] if late is None else [late, message]
        if is_late and late is None and not is_lost:
            self._late = message
            return []
        found = [] if is_lost else [message, message] if is_doubled else [message]
        return found if late is None else [*found, late]

    def aclose(self) -> Any:
        return self._inner.aclose()
