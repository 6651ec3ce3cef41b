"""HTTP responses out of messages, streams and faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from shadowcat.core.exchange import MessageStream, Piece
from shadowcat.core.ports import ClientStream
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.check import Refusal
from shadowcat.http.message import HeaderList, Response
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.sse import KEEPALIVE, encode_event, encode_messages, encode_priming

T = TypeVar("T")
Given = TypeVar("Given", covariant=True)

JSON_HEAD: HeaderList = [(b"content-type", b"application/json")]
_SSE: HeaderList = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    # Tells nginx and its kin in front of us not to hold events back.
    (b"x-accel-buffering", b"no"),
]


def json_response(message: Message, status: int = 200, extra: HeaderList | None = None) -> Response:
    return Response(status, JSON_HEAD + extra if extra else JSON_HEAD, message.raw)


def fault_response(fault: Fault, id: RequestId | None, *, status: int | None = None) -> Response:
    """The refusal as HTTP and JSON-RPC say it. In a legacy session what an upstream did wrong is told in-band."""
    extra: HeaderList = []
    if fault.kind is FaultKind.OVER_CAPACITY:
        extra.append((b"retry-after", b"5"))
    return json_response(jsonrpc.error(id, fault.error()), status or fault.status, extra)


_REFUSED = {
    405: FaultKind.METHOD_NOT_ALLOWED,
    413: FaultKind.BODY_TOO_LARGE,
    415: FaultKind.UNSUPPORTED_MEDIA_TYPE,
    500: FaultKind.INTERNAL,
    503: FaultKind.OVER_CAPACITY,
}


def refusal_response(refusal: Refusal) -> Response:
    """What the engine refused before anybody read it, in the words of the endpoint."""
    kind = _REFUSED.get(refusal.status, FaultKind.INVALID_REQUEST)
    fault = Fault(kind, refusal.why[:1].upper() + refusal.why[1:])
    return fault_response(fault, None, status=refusal.status)


def accepted() -> Response:
    return Response(202)


def not_allowed(allow: bytes) -> Response:
    fault = Fault(FaultKind.METHOD_NOT_ALLOWED)
    return json_response(jsonrpc.error(None, fault.error()), 405, [(b"allow", allow)])


def stream_response(
    stream: ClientStream, retry_ms: Callable[[], int], keepalive_s: float, extra: HeaderList
) -> Response:
    """A stored stream: its events carry ids, so that the client can come back for the rest."""

    def encode(piece: Piece) -> bytes:
        events = encode_messages(piece.prefix, piece.first, piece.data)
        return encode_priming(piece.id_before, retry_ms()) + events if piece.primes else events

    return event_response(_EventBody(stream, encode), keepalive_s, extra)


def relayed_response(stream: MessageStream, keepalive_s: float) -> Response:
    """A modern stream: passed through as it comes, never resumed."""

    def encode(batch: list[Message]) -> bytes:
        return b"".join([encode_event(message.raw, event=b"message") for message in batch])

    return event_response(_EventBody(stream, encode), keepalive_s)


def empty_stream_response() -> Response:
    """For a request that will get no answer: the stream it would have had, ended."""
    return Response(200, _SSE)


def event_response(
    body: AsyncIterator[bytes], keepalive_s: float, extra: HeaderList | None = None
) -> Response:
    return Response(200, _SSE + extra if extra else _SSE, body, idle_chunk=KEEPALIVE, idle_s=keepalive_s)


class _Closable(Protocol[Given]):
    def __aiter__(self) -> AsyncIterator[Given]: ...

    def aclose(self) -> Coroutine[Any, Any, None]: ...


class _EventBody(Generic[T]):
    """Not a generator: one that never started would be closed without its stream being closed."""

    def __init__(self, stream: _Closable[T], encode: Callable[[T], bytes]) -> None:
        self._stream = stream
        self._pieces = aiter(stream)
        self._encode = encode

    def __aiter__(self) -> _EventBody[T]:
        return self

    async def __anext__(self) -> bytes:
        return self._encode(await anext(self._pieces))

    async def aclose(self) -> None:
        await self._stream.aclose()
