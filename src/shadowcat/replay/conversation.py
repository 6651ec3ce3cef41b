"""The server's side of one recorded session, played to a live client."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncGenerator

from shadowcat.core.correlate import progress_token
from shadowcat.core.exchange import Answer
from shadowcat.core.multiplex import subscription_of, with_subscription, with_token
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.recorded import Exchange, RecordedSession, Recording, Step
from shadowcat.replay.unknown import CODE, not_on_tape
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method

log = logging.getLogger("shadowcat.replay")


class Conversation:
    def __init__(self, recording: Recording, session: RecordedSession, options: ReplayOptions) -> None:
        self._recording = recording
        self._session = session
        self._options = options
        self._asked: Counter[bytes] = Counter()
        self._told: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._questions: dict[jsonrpc.RequestId, int] = {}
        """Those that are open, by the id they were asked under: which ones on the tape."""
        self._answered: set[int] = set()
        self._heard_up_to = 0
        """How far the client is on the tape."""
        self._changed = asyncio.Event()

    # The client.

    def heard(self, message: Message) -> None:
        """A notification, or an answer to a question."""
        if message.is_response:
            asked = self._questions.pop(message.id, None) if message.id is not None else None
            if asked is not None:
                self._answered.add(asked)
                self._tell()
        else:
            # Which of several on the tape this one is does not matter: the client has come that far.
            self._come_to(self._next_told(message.method))

    def _next_told(self, method: str) -> int:
        recorded = self._session.told.get(method)
        if not recorded:
            return 0  # and not counted: a client may make up methods without end
        self._told[method] += 1
        return recorded[min(self._told[method], len(recorded)) - 1]

    def _come_to(self, seq: int) -> None:
        if seq > self._heard_up_to:
            self._heard_up_to = seq
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # Answers.

    async def answer(self, request: Message) -> Answer:
        """As on the tape; for what is not on it, an error that says so."""
        assert request.id is not None
        if request.method == Method.PING:
            return Answer(whole=jsonrpc.result(request.id, {}))
        asked = self._recording.without_secrets(request)
        exchange = self._find(asked)
        if exchange is None:
            error = not_on_tape(self._recording, self._session, asked)
            log.warning("%s", error.error()["message"])
            return Answer(whole=error.with_id(request.id))
        self._come_to(exchange.step.seq)
        if exchange.is_refused:
            return Answer(whole=self._recording.refusal(exchange).with_id(request.id))
        if exchange.is_answered and len(exchange.steps) == 1:
            [step] = exchange.steps
            await self._pace(exchange, step)
            whole = self._recording.heard_by_client(step)
            assert whole is not None
            return Answer(whole=whole.with_id(request.id), status=self._recording.frame(step).status)
        return Answer(stream=PlayedStream(self._played(exchange, request)))

    def _find(self, asked: Message) -> Exchange | None:
        """The n-th of those that are the same, for the n-th time that it is asked; then the last one again."""
        key = self._recording.likeness.key(asked)
        same = self._session.same_as(key)
        if not same:
            return None  # and not counted, as `_next_told` does not
        number = self._asked[key]
        self._asked[key] += 1
        if number < len(same):
            return same[number]
        return None if self._options.strict else same[-1]

    async def _played(self, exchange: Exchange, request: Message) -> AsyncGenerator[list[Message]]:
        assert request.id is not None
        recorded_id = self._recording.request(exchange).id
        for step in exchange.steps:
            if step.is_up:
                await self._until_answered(step)
                continue
            await self._pace(exchange, step)
            message = self._as_asked(step, request, recorded_id)
            if message is not None:
                yield [message]
        if not exchange.is_answered:
            if exchange.is_cancelled or exchange.method == Method.LISTEN:
                # The client ended it on the tape, and will again.
                await asyncio.Event().wait()
            yield [_unanswered(request)]

    def _as_asked(self, step: Step, request: Message, recorded_id: object) -> Message | None:
        """What the client heard, under the ids and tokens of today."""
        message = self._recording.heard_by_client(step)
        if message is None:
            return None
        if message.is_response:
            message = message.with_id(request.id)
        elif message.is_request:
            return self._question(step, message)
        elif message.method == Method.PROGRESS:
            token = progress_token(request)
            return None if token is None else with_token(message, token)
        named = subscription_of(message)
        if named is not None and named == recorded_id and request.id is not None:
            message = with_subscription(message, request.id)
        return message

    def _question(self, step: Step, message: Message) -> Message:
        id = f"tape-{next(self._ids)}"
        self._questions[id] = step.seq
        return message.with_id(id)

    async def _until_answered(self, step: Step) -> None:
        """What follows on the tape came after the client's answer."""
        wait_s = self._options.wait_s
        try:
            async with asyncio.timeout(wait_s):
                while step.request not in self._answered:
                    await self._changed.wait()
        except TimeoutError:
            log.warning(
                "the client left a question of the server's unanswered for %g s; the tape goes on", wait_s
            )

    async def _pace(self, exchange: Exchange, step: Step) -> None:
        if self._options.speed:
            before = exchange.step
            place = exchange.steps.index(step)
            if place:
                before = exchange.steps[place - 1]
            await asyncio.sleep(self._options.pause_s(step.ms - before.ms))

    # What no request brings.

    @property
    def has_standalone(self) -> bool:
        return bool(self._session.standalone)

    async def standalone(self) -> AsyncGenerator[list[Message]]:
        """Each once the client has said what it had said before it on the tape."""
        for one in self._session.standalone:
            while self._heard_up_to < one.after:
                await self._changed.wait()
            message = self._recording.heard_by_client(one.step)
            if message is not None:
                yield [self._question(one.step, message) if message.is_request else message]
        await asyncio.Event().wait()


class PlayedStream:
    """Implements `core.exchange.MessageStream`."""

    cursor = None

    def __init__(self, played: AsyncGenerator[list[Message]]) -> None:
        self._played = played

    def __aiter__(self) -> PlayedStream:
        return self

    async def __anext__(self) -> list[Message]:
        return await anext(self._played)

    async def aclose(self) -> None:
        await self._played.aclose()


def _unanswered(request: Message) -> Message:
    reason = "unanswered_on_the_tape"
    error = {"code": CODE, "message": "The tape has no answer to this request", "data": {"reason": reason}}
    return jsonrpc.error(request.id, error)
