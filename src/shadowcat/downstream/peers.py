"""Requests for sessions that live on another node: passed on to it, and its answer handed back as it comes.

Only what a session's requests need is passed on, sealed with the key that the nodes share. The other node believes it
that Host and Origin were checked here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from shadowcat.aio import Tasks
from shadowcat.clock import Clock
from shadowcat.core.peer import SEAL_HEADER, is_sealed, seal
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList, Headers, Request, Response
from shadowcat.wire import jsonrpc
from shadowcat.wire.mcp import PRIMING_VERSIONS, Header
from shadowcat.wire.sse import encode_priming

log = logging.getLogger("shadowcat.cluster")

_PASSED_ON = (
    b"accept",
    b"content-type",
    Header.SESSION_ID,
    Header.PROTOCOL_VERSION,
    Header.LAST_EVENT_ID,
)
_HANDED_BACK = (
    b"content-type",
    b"cache-control",
    b"x-accel-buffering",
    b"allow",
    b"retry-after",
    Header.SESSION_ID,
)
_MAX_BODY_BYTES = 32 * 1024 * 1024
SILENCE_S = 40.0
_TIMEOUTS = Timeouts(connect_s=2.0, head_s=None, gap_s=SILENCE_S)
"""A call may be long in answering; a stream is never silent for as long as this, because of the comments on it."""
_LOOK_S = 2.0
"""How often a request that waits for its answer has it looked at whether the other node is still there."""
_LAST_WORD_S = 10.0
"""For a node that has the session no more to say whether it had begun a request: it may have been slow to read it,
and have handed the session over before it did."""

_EVENT_END = b"\n\n"

MISDIRECTED = 421


class Peers:
    def __init__(self, client: Client, own: str, key: bytes, clock: Clock) -> None:
        """`own` is the URL of this node, which others seal what they send it with."""
        self._client = client
        self._own = own.encode()
        self._key = key
        self._clock = clock
        self._tasks = Tasks("peers")
        self._listening: dict[_Rest, bool] = {}
        """The streams that clients came for by themselves, and whether they know what a `retry` is."""
        self._retry_ms: Callable[[], int] | None = None
        """Once this node leaves: what such clients are told."""

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def part(self, retry_ms: Callable[[], int]) -> None:
        """Ends the streams that clients came for: they can do so elsewhere. Those that answer a call go on."""
        self._retry_ms = retry_ms
        for rest, knows_retry in tuple(self._listening.items()):
            _send_away(rest, retry_ms, knows_retry)

    def vouches_for(self, request: Request) -> bool:
        """Whether the request was passed on by another node."""
        value = request.headers.get(SEAL_HEADER)
        if value is None:
            return False
        if is_sealed(self._key, self._clock.wall(), _parts(request, self._own), value):
            return True
        log.warning("a request from another node has a wrong seal: do both nodes have the same key and time?")
        return False

    async def pass_on(
        self, request: Request, node: str, is_held: Callable[[], Awaitable[bool]]
    ) -> Response | None:
        """The other node's answer; None where it was not reached, or is not the one.

        `is_held` tells whether that node still has the session. Raises `Fault`: nobody knows what became of the
        request.
        """
        fields = [(name, value) for name in _PASSED_ON if (value := request.headers.get(name)) is not None]
        fields.append((SEAL_HEADER, seal(self._key, self._clock.wall(), _parts(request, node.encode()))))
        target = request.target.decode("ascii")
        sending = self._tasks.spawn(
            self._client.send(Origin.of(node), request.method, target, fields, request.body, _TIMEOUTS),
            "pass on",
            awaited=True,
        )
        try:
            while not (await asyncio.wait((sending,), timeout=_LOOK_S))[0]:
                if await is_held():
                    continue
                if _may_be_sent_again(request):
                    return None
                if not (await asyncio.wait((sending,), timeout=_LAST_WORD_S))[0]:
                    raise _lost()
        finally:
            sending.cancel()
        # Not raised: the task keeps it, and it would keep who has the task.
        fault = sending.exception()
        if isinstance(fault, Fault):
            log.info("node %s: %s", node, fault.reason)
            if fault.sent and not _may_be_sent_again(request):
                raise _lost() from fault
            return None
        response = sending.result()
        if response.status == MISDIRECTED:
            response.abort()
            return None
        if not _is_stream(response.headers):
            body: bytes | _Rest = await response.read(_MAX_BODY_BYTES)
        else:
            body = _Rest(response, self._listening, _last_event_id(request))
            if request.method == "GET":
                self._listening[body] = _knows_retry(request)
                if self._retry_ms is not None:
                    _send_away(body, self._retry_ms, self._listening[body])
        return _handed_back(response, body)


def _send_away(rest: _Rest, retry_ms: Callable[[], int], knows_retry: bool) -> None:
    rest.part(retry_ms() if knows_retry else None)


def _knows_retry(request: Request) -> bool:
    version = request.headers.get(Header.PROTOCOL_VERSION) or b""
    return version.decode("latin-1") in PRIMING_VERSIONS


def _last_event_id(request: Request) -> bytes | None:
    """Where a client that may be primed goes on from."""
    return request.headers.get(Header.LAST_EVENT_ID) if _knows_retry(request) else None


def _may_be_sent_again(request: Request) -> bool:
    """Though it may have been begun: only reading on in a stream can be asked for twice, and an answer be given."""
    return request.method != "POST" or _is_answer(request.body)


def _lost() -> Fault:
    return Fault(FaultKind.OUTCOME_UNKNOWN, reason="node_lost", sent=True)


def _is_answer(body: bytes) -> bool:
    try:
        return jsonrpc.parse(body).is_response
    except Fault:
        return False


def _handed_back(response: ClientResponse, body: bytes | _Rest) -> Response:
    headers: HeaderList = [
        (name, value) for name in _HANDED_BACK if (value := response.headers.get(name)) is not None
    ]
    return Response(response.status, headers, body)


def _is_stream(headers: Headers) -> bool:
    return (headers.get(b"content-type") or b"").startswith(b"text/event-stream")


class _Rest:
    """The other node's stream, event by event. Where it breaks, ours ends, and the client comes back for the rest."""

    def __init__(
        self, response: ClientResponse, listening: dict[_Rest, bool], resumed_from: bytes | None
    ) -> None:
        self._response = response
        self._listening = listening
        self._resumed_from = resumed_from
        """Said again where the stream ends before anything came: the TypeScript SDK 1.x forgets it then."""
        self._held = bytearray()
        """Of an event that is not whole yet."""
        self._retry_ms: int | None = None
        """When a client that is sent away is to come back."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                piece = await anext(self._response)
            except Fault:
                if farewell := self._last_words():
                    return farewell
                raise StopAsyncIteration from None
            whole = piece if not self._held and piece.endswith(_EVENT_END) else self._whole(piece)
            if whole:
                self._resumed_from = None
                return whole

    def _last_words(self) -> bytes:
        retry_ms, self._retry_ms = self._retry_ms, None
        resumed_from, self._resumed_from = self._resumed_from, None
        if resumed_from is not None:
            return encode_priming(resumed_from, retry_ms)
        return b"" if retry_ms is None else b"retry: %d\n\n" % retry_ms

    def _whole(self, piece: bytes) -> bytes:
        held = self._held
        looked_at = max(0, len(held) - 1)
        held += piece
        end = held.rfind(_EVENT_END, looked_at) + len(_EVENT_END)
        if end < len(_EVENT_END):
            return b""
        whole = bytes(held[:end])
        del held[:end]
        return whole

    def part(self, retry_ms: int | None) -> None:
        self._retry_ms = retry_ms
        self._response.abort()

    async def aclose(self) -> None:
        self._listening.pop(self, None)
        await self._response.aclose()


def _parts(request: Request, node: bytes) -> list[bytes]:
    fields = [request.headers.get(name) or b"" for name in _PASSED_ON]
    return [node, request.method.encode("ascii"), request.target, *fields, request.body]
