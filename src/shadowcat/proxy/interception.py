"""What interceptors make of the messages on a connection that carries one client to one server."""

from __future__ import annotations

import logging
from typing import NamedTuple

from shadowcat.core.exchange import Caller, Context, Direction, Reject, Reply
from shadowcat.core.multiplex import request_named_by
from shadowcat.core.negotiate import claims_of
from shadowcat.core.waiting import Waiting
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import MODERN_VERSIONS, Era, Method

log = logging.getLogger("shadowcat.stdio")


class Sent(NamedTuple):
    is_up: bool
    """To the server; else to the client."""
    message: Message


class Interception:
    def __init__(self, pipeline: Pipeline, upstream: str, session_id: str) -> None:
        self.pipeline = pipeline
        self._upstream = upstream
        self._session_id = session_id
        self.waiting: Waiting[Message] = Waiting()
        self._questions: Waiting[Message] = Waiting()
        """Requests of the server's."""
        self._era = Era.LEGACY
        self._introduction = b""

    async def outcome(self, line: bytes, *, is_up: bool) -> list[Sent]:
        """What goes on or back for it. Raises `Fault` for a line that holds no message."""
        parsed = jsonrpc.parse_body(line)
        if isinstance(parsed, Message):
            return await self._one(parsed, is_up)
        sent: list[Sent] = []
        for element in parsed:
            if isinstance(element, Message):
                sent += await self._one(element, is_up)
            elif is_up:
                sent.append(Sent(False, jsonrpc.error(None, element.error())))
        return sent

    async def _one(self, message: Message, is_up: bool) -> list[Sent]:
        request = None
        if message.is_response and message.id is not None:
            # Before anybody looks at it: whatever they make of it is the answer.
            request = (self._questions if is_up else self.waiting).answered(message.id)
            if request is None and self.pipeline.interceptors:
                return self._dropped(message, is_up)
        elif message.is_request:
            try:
                self._asked(message, is_up)
            except Fault as fault:
                return [_answer(message, fault, not is_up)]
        try:
            outcome = await self._judged(message, is_up, request)
        except Fault as fault:
            return self._refused(message, fault, is_up)
        if isinstance(outcome, Reply):
            return self._replied(message, outcome.message, is_up)
        if not self._goes_on(outcome, is_up):
            return []
        return [Sent(is_up, outcome)]

    def _dropped(self, answer: Message, is_up: bool) -> list[Sent]:
        """An answer to nothing: who judges answers to some method could not tell, and there are clients for which
        "1" answers 1."""
        fault = Fault(FaultKind.INVALID_REQUEST, reason="answers_nothing")
        self.pipeline.tell(answer, self._context(is_up, None), Reject(fault))
        log.debug("dropped an answer to nothing: %r", answer)
        return []

    def failed(self, request: Message, fault: Fault) -> None:
        """The request went on and is answered with a fault from here."""
        self.pipeline.failed(self._context(False, request), fault)

    def _asked(self, request: Message, is_up: bool) -> None:
        assert request.id is not None
        waiting = self.waiting if is_up else self._questions
        if request.id in waiting and self.pipeline.interceptors:
            # The answer to the first would be judged as if it were the second's.
            raise Fault(FaultKind.INVALID_REQUEST, "A request with this id is in flight")
        waiting.ask(request.id, request)
        if not is_up:
            return
        if request.method == Method.INITIALIZE:
            self._era = Era.LEGACY
            self._introduction = request.raw_params
        elif claims_of(request, None).body in MODERN_VERSIONS:
            self._era = Era.MODERN
            self._introduction = request.raw_params

    async def _judged(self, message: Message, is_up: bool, request: Message | None) -> Message | Reply:
        pipeline = self.pipeline
        method = message.method or ("" if request is None else request.method)
        if pipeline.steps(message.kind, method, _direction(is_up)):
            return await pipeline.run(message, self._context(is_up, request))
        if pipeline.is_tapped:
            pipeline.tell(message, self._context(is_up, request))
        return message

    def _context(self, is_up: bool, request: Message | None) -> Context:
        session_id = self._session_id if self._era is Era.LEGACY else None
        return Context(
            self._era,
            _direction(is_up),
            Caller(),
            self._upstream,
            session_id,
            request,
            introduction=self._introduction,
        )

    def _goes_on(self, message: Message, is_up: bool) -> bool:
        if is_up and message.is_request and message.id is not None:
            # The server may have ended, and the client been told, while an interceptor thought about it.
            return message.id in self.waiting
        if message.method == Method.CANCELLED:
            id = request_named_by(message)
            if id is not None:
                (self.waiting if is_up else self._questions).forget(id)
        return True

    def _refused(self, message: Message, fault: Fault, is_up: bool) -> list[Sent]:
        if message.id is None:
            return []
        if message.is_response:
            return [_answer(message, fault, is_up)]
        return self._back(message, jsonrpc.error(message.id, fault.error()), is_up)

    def _replied(self, message: Message, answer: Message, is_up: bool) -> list[Sent]:
        if message.is_response:
            return [Sent(is_up, answer)]
        return [] if message.id is None else self._back(message, answer, is_up)

    def _back(self, request: Message, answer: Message, is_up: bool) -> list[Sent]:
        """The answer to a request that goes no further; a client that was answered meanwhile hears nothing twice."""
        assert request.id is not None
        if not is_up:
            self._questions.forget(request.id)
            return [Sent(True, answer)]
        if request.id not in self.waiting:
            return []
        self.waiting.forget(request.id)
        return [Sent(False, answer)]


def _direction(is_up: bool) -> Direction:
    return Direction.TO_SERVER if is_up else Direction.TO_CLIENT


def _answer(message: Message, fault: Fault, is_up: bool) -> Sent:
    return Sent(is_up, jsonrpc.error(message.id, fault.error()))
