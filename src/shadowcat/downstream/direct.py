"""The way of an ordinary call: what its head says is known from the one before, and callbacks do the rest.

Whoever keeps a connection open repeats the head, so what the endpoint concludes from it is concluded once. Only what
could be refused or treated in any other way than usual is left to the endpoint; what it means is decided there alone.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from shadowcat.core.exchange import Caller, Piece, Rest
from shadowcat.core.negotiate import may_claim_an_era
from shadowcat.core.ports import ClientSession, ClientStream, Gateway
from shadowcat.errors import Fault
from shadowcat.http.later import Later
from shadowcat.http.message import Request, Response
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import REQUEST, Message, RequestId
from shadowcat.wire.mcp import Method

Outcome = Message | ClientStream | None


class Endpoint(Protocol):
    gateway: Gateway
    caller: Caller

    def in_session(
        self, session: ClientSession, id: RequestId | None, asking: Awaitable[Outcome]
    ) -> Awaitable[Response]:
        """The response to a request of a session's, once its outcome is known."""
        ...

    def events(self, piece: Piece) -> bytes: ...


class Admission(msgspec.Struct, frozen=True):
    """What the head of a POST says, where that is nothing unusual."""

    session_id: str
    answer_head: bytes
    """Of a whole answer, as `http.message.encode_head` gives it."""
    stream_head: bytes
    """Of a stream that is all there at once; likewise."""


def begin(endpoint: Endpoint, request: Request, admission: Admission) -> Later | None:
    """None for what is to be looked at more closely: nothing has been done then."""
    session = endpoint.gateway.at_hand(admission.session_id, endpoint.caller)
    if session is None:
        return None
    try:
        message = jsonrpc.parse(request.body)
    except Fault:
        return None
    if message.kind is not REQUEST or message.method == Method.INITIALIZE or may_claim_an_era(message):
        return None
    call = _Call(endpoint=endpoint, session=session, id=message.id, admission=admission)
    call.cancel = session.ask(message, call.answered)
    return None if call.cancel is None else call


class _Call(Later, kw_only=True, eq=False):
    endpoint: Endpoint
    session: ClientSession
    id: RequestId | None
    admission: Admission

    def answered(self, outcome: Message | Piece | Rest[Outcome]) -> None:
        if isinstance(outcome, Message):
            self.settle(Response(200, [], outcome.raw, self.admission.answer_head))
        elif isinstance(outcome, Piece):
            # Nothing comes after it, so it needs no chunks.
            self.settle(Response(200, [], self.endpoint.events(outcome), self.admission.stream_head))
        else:
            self.settle(self.endpoint.in_session(self.session, self.id, outcome()))
