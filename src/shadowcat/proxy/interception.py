"""Applies interceptors to a connection between one client and one server."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

from shadowcat.core.correlate import progress_token
from shadowcat.core.exchange import Caller, Context, Direction, Reject, Reply
from shadowcat.core.multiplex import request_named_by, token_of
from shadowcat.core.negotiate import claims_of
from shadowcat.core.waiting import Waiting
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.pipeline import Pipeline, Undecided
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import MODERN_VERSIONS, Era, Method

log = logging.getLogger("shadowcat.stdio")


class Sent(NamedTuple):
    is_up: bool
    """To the server; else to the client."""
    message: Message


_Conclude = Callable[[Awaitable[Message | Reply]], Coroutine[Any, Any, Sequence[Sent]]]


class Pending:
    """A message that an interceptor has to be waited for with."""

    def __init__(self, message: Message, is_up: bool, judged: Undecided, conclude: _Conclude) -> None:
        self.message = message
        self.is_up = is_up
        self._judged = judged
        self._conclude = conclude

    @property
    def may_be_passed(self) -> bool:
        """By what comes after it. Peers wait for answers where order counts; what is only told is in order."""
        return self.message.is_request and self.message.method != Method.INITIALIZE

    async def sent(self) -> Sequence[Sent]:
        """What goes on or back for it."""
        return await self._conclude(self._judged.outcome())

    def let_go(self) -> None:
        self._judged.let_go()


class Asked(NamedTuple):
    """A client's request that is unanswered."""

    request: Message
    token: RequestId | None
    """What its progress carries. Read once: some servers tell progress often, and arguments may be long."""


class Interception:
    def __init__(self, pipeline: Pipeline, upstream: str, session_id: str) -> None:
        self.pipeline = pipeline
        self._upstream = upstream
        self._session_id = session_id
        self.waiting: Waiting[Asked] = Waiting()
        self._questions: Waiting[Message] = Waiting()
        """Requests of the server's."""
        self._era = Era.LEGACY
        self._introduction = b""
        self.withdraw: Callable[[bool, RequestId], bool] = lambda is_up, id: False
        """Ends what becomes of a `Pending` request that was cancelled. False for one that is not waited for."""

    def take(self, line: bytes, *, is_up: bool) -> list[Sent | Pending]:
        """What goes on or back for it. Raises `Fault` for a line that holds no message."""
        parsed = jsonrpc.parse_body(line)
        if isinstance(parsed, Message):
            return self._one(parsed, is_up)
        found: list[Sent | Pending] = []
        for element in parsed:
            if isinstance(element, Message):
                found += self._one(element, is_up)
            elif is_up:
                found.append(Sent(False, jsonrpc.error(None, element.error())))
        return found

    def _one(self, message: Message, is_up: bool) -> list[Sent | Pending]:
        request = None
        if message.is_response and message.id is not None:
            # Before anybody looks at it: whatever they make of it is the answer.
            request = self._answered(message.id, is_up)
            if request is None and self.pipeline.interceptors:
                return self._dropped(message, is_up)
        elif message.is_request:
            try:
                self._asked(message, is_up)
            except Fault as fault:
                return [_answer(message, fault, not is_up)]
        elif message.method == Method.PROGRESS and not is_up:
            request = self._progressing(token_of(message))
        try:
            judged = self._judge(message, is_up, request)
        except Fault as fault:
            return [*self._refused(message, fault, is_up)]
        if isinstance(judged, Undecided):
            return [Pending(message, is_up, judged, partial(self._conclude, message, is_up))]
        return [*self._decided(message, judged, is_up)]

    async def _conclude(
        self, message: Message, is_up: bool, judging: Awaitable[Message | Reply]
    ) -> Sequence[Sent]:
        try:
            return self._decided(message, await judging, is_up)
        except Fault as fault:
            return self._refused(message, fault, is_up)

    def _decided(self, message: Message, judged: Message | Reply, is_up: bool) -> Sequence[Sent]:
        if isinstance(judged, Reply):
            return self._replied(message, judged.message, is_up)
        return [Sent(is_up, judged)] if self._goes_on(judged, is_up) else []

    def _dropped(self, answer: Message, is_up: bool) -> list[Sent | Pending]:
        """An answer to nothing: who judges answers to some method could not tell, and there are clients for which
        "1" answers 1."""
        fault = Fault(FaultKind.INVALID_REQUEST, reason="answers_nothing")
        self.pipeline.tell(answer, self._context(is_up, None), Reject(fault))
        log.debug("dropped an answer to nothing: %r", answer)
        return []

    def failed(self, asked: Asked, fault: Fault) -> None:
        """The request went on and is answered with a fault from here."""
        self.pipeline.failed(self._context(False, asked.request), fault)

    def _asked(self, request: Message, is_up: bool) -> None:
        assert request.id is not None
        waiting = self.waiting if is_up else self._questions
        if request.id in waiting and self.pipeline.interceptors:
            # The answer to the first would be judged as if it were the second's.
            raise Fault(FaultKind.INVALID_REQUEST, "A request with this id is in flight")
        if not is_up:
            self._questions.ask(request.id, request)
            return
        self.waiting.ask(request.id, Asked(request, progress_token(request)))
        if request.method == Method.INITIALIZE:
            self._era = Era.LEGACY
            self._introduction = request.raw_params
        elif claims_of(request, None).body in MODERN_VERSIONS:
            self._era = Era.MODERN
            self._introduction = request.raw_params

    def _answered(self, id: RequestId, is_up: bool) -> Message | None:
        if is_up:
            return self._questions.answered(id)
        asked = self.waiting.answered(id)
        return None if asked is None else asked.request

    def _progressing(self, token: RequestId | None) -> Message | None:
        """The request that this progress is of: over HTTP the stream says so, here nothing but the token does."""
        if token is None:
            return None
        of_it = (asked.request for asked in self.waiting.kept() if _is_same(asked.token, token))
        return next(of_it, None)

    def _judge(self, message: Message, is_up: bool, request: Message | None) -> Message | Reply | Undecided:
        pipeline = self.pipeline
        method = message.method or ("" if request is None else request.method)
        steps = pipeline.steps(message.kind, method, _direction(is_up))
        if steps:
            return pipeline.begin(message, self._context(is_up, request), steps)
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
                # Who never heard of it is not told of its end.
                return not self.withdraw(is_up, id)
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


def _is_same(token: RequestId | None, other: RequestId) -> bool:
    return token == other and type(token) is type(other)


def _direction(is_up: bool) -> Direction:
    return Direction.TO_SERVER if is_up else Direction.TO_CLIENT


def _answer(message: Message, fault: Fault, is_up: bool) -> Sent:
    return Sent(is_up, jsonrpc.error(message.id, fault.error()))
