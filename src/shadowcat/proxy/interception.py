"""What interceptors make of the messages on a connection that carries one client to one server."""

from __future__ import annotations

from shadowcat.core.exchange import Caller, Context, Direction, Reply
from shadowcat.core.multiplex import request_named_by
from shadowcat.core.negotiate import claims_of
from shadowcat.core.waiting import Waiting
from shadowcat.errors import Fault
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import MODERN_VERSIONS, Era, Method

Sent = tuple[Direction, Message]
UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT


class Interception:
    def __init__(self, pipeline: Pipeline, upstream: str, session_id: str) -> None:
        self._pipeline = pipeline
        self._upstream = upstream
        self._session_id = session_id
        self.waiting: Waiting[Message] = Waiting()
        self._era = Era.LEGACY

    async def outcome(self, line: bytes, direction: Direction) -> list[Sent]:
        """What goes on or back for it. Raises `Fault` for a line that holds no message."""
        parsed = jsonrpc.parse_body(line)
        if isinstance(parsed, Message):
            return await self._one(parsed, direction)
        sent: list[Sent] = []
        for element in parsed:
            if isinstance(element, Message):
                sent += await self._one(element, direction)
            elif direction is UP:
                sent.append((DOWN, jsonrpc.error(None, element.error())))
        return sent

    async def _one(self, message: Message, direction: Direction) -> list[Sent]:
        request = None
        if direction is DOWN and message.is_response and message.id is not None:
            # Before anybody looks at it: whatever they make of it is the answer.
            request = self.waiting.answered(message.id)
        if direction is UP and message.is_request:
            try:
                self._asked(message)
            except Fault as fault:
                return [_answer(message, fault, DOWN)]
        try:
            outcome = await self._pipeline.run(message, self._context(direction, request))
        except Fault as fault:
            return self._refused(message, fault, direction)
        if isinstance(outcome, Reply):
            return self._replied(message, outcome.message, direction)
        if direction is UP and not self._goes_on(outcome):
            return []
        return [(direction, outcome)]

    def _asked(self, request: Message) -> None:
        assert request.id is not None
        if request.method == Method.INITIALIZE:
            self._era = Era.LEGACY
        elif claims_of(request, None).body in MODERN_VERSIONS:
            self._era = Era.MODERN
        self.waiting.ask(request.id, request)

    def _context(self, direction: Direction, request: Message | None) -> Context:
        session_id = self._session_id if self._era is Era.LEGACY else None
        return Context(self._era, direction, Caller(), self._upstream, session_id, request)

    def _goes_on(self, message: Message) -> bool:
        if message.is_request and message.id is not None:
            # The server may have ended, and the client been told, while an interceptor thought about it.
            return message.id in self.waiting
        if message.method == Method.CANCELLED:
            id = request_named_by(message)
            if id is not None:
                self.waiting.forget(id)
        return True

    def _refused(self, message: Message, fault: Fault, direction: Direction) -> list[Sent]:
        if message.id is None:
            return []
        if message.is_response:
            return [_answer(message, fault, direction)]
        return self._back(message, jsonrpc.error(message.id, fault.error()), direction)

    def _replied(self, message: Message, answer: Message, direction: Direction) -> list[Sent]:
        if message.is_response:
            return [(direction, answer)]
        return [] if message.id is None else self._back(message, answer, direction)

    def _back(self, request: Message, answer: Message, direction: Direction) -> list[Sent]:
        """The answer to a request that goes no further; a client that was answered meanwhile hears nothing twice."""
        assert request.id is not None
        if direction is DOWN:
            return [(UP, answer)]
        if request.id not in self.waiting:
            return []
        self.waiting.forget(request.id)
        return [(DOWN, answer)]


def _answer(message: Message, fault: Fault, direction: Direction) -> Sent:
    return direction, jsonrpc.error(message.id, fault.error())
