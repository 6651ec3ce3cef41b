"""HTTP responses out of messages, streams and faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from shadowcat.core.exchange import MessageStream, Piece
from shadowcat.core.ports import ClientStream
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.check import Refusal
from shadowcat.http.message import HeaderList, Response
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.sse import KEEPALIVE, encode_event, encode_messages, encode_priming

JSON_HEAD: HeaderList = [(b"content-type", b"application/json")]
SSE_HEAD: HeaderList = [
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

    return event_response(_StoredBody(stream, retry_ms), keepalive_s, extra)


def encode_piece(piece: Piece, retry_ms: Callable[[], int]) -> bytes:
    events = encode_messages(piece.prefix, piece.first, piece.data)
    return encode_priming(piece.id_before, retry_ms()) + events if piece.primes else events


def relayed_response(stream: MessageStream, keepalive_s: float) -> Response:
    """A modern stream: passed through as it comes, never resumed."""

    return event_response(_RelayedBody(stream), keepalive_s)


def empty_stream_response() -> Response:
    """For a request that will get no answer: the stream it would have had, ended."""
    return Response(200, SSE_HEAD)


def event_response(
    body: AsyncIterator[bytes], keepalive_s: float, extra: HeaderList | None = None
) -> Response:
    return Response(
        200, SSE_HEAD + extra if extra else SSE_HEAD, body, idle_chunk=KEEPALIVE, idle_s=keepalive_s
    )


class _StoredBody:
    """Not a generator: one that never started would be closed without its stream being closed."""

    __slots__ = ("_retry_ms", "_stream")

    def __init__(self, stream: ClientStream, retry_ms: Callable[[], int]) -> None:
        self._stream = stream
        self._retry_ms = retry_ms

    def __aiter__(self) -> _StoredBody:
        return self

    async def __anext__(self) -> bytes:
        return encode_piece(await anext(self._stream), self._retry_ms)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _RelayedBody:
    """No generator either."""

    __slots__ = ("_stream",)

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream

    def __aiter__(self) -> _RelayedBody:
        return self

    async def __anext__(self) -> bytes:
        batch = await anext(self._stream)
        return b"".join([encode_event(message.raw, event=b"message") for message in batch])

    async def aclose(self) -> None:
        await self._stream.aclose()
