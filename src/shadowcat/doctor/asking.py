"""One HTTP request to an MCP endpoint and all that came of it, in bounded time and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from shadowcat.doctor.loose import result_of
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList
from shadowcat.wire import jsonrpc
from shadowcat.wire.headers import encode_value
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import MODERN_VERSIONS, NAMED_BY, Header, Meta
from shadowcat.wire.sse import SseDecoder
from shadowcat.wire.text import on_one_line

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 20_000
"""Of one stream."""
ANSWER_S = 10.0
_SHOWN_BYTES = 60
CLIENT_INFO = {"name": "shadowcat-doctor", "version": "1"}
BOTH = b"application/json, text/event-stream"
SSE = b"text/event-stream"


@dataclass(slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    took_ms: float = 0.0
    message: Message | None = None
    """The answer to the request."""
    flaw: str = ""
    """What came in the place of an answer."""
    arrivals_ms: list[float] = field(default_factory=list[float])
    """Of each event with data."""
    first_ms: float | None = None
    """Of the first byte of a stream's body."""
    ids: list[bytes] = field(default_factory=list[bytes])
    """Of its events."""
    has_endpoint: bool = False
    """The first word of the HTTP+SSE transport."""

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_stream(self) -> bool:
        return self.content_type == "text/event-stream"

    @property
    def result(self) -> dict[str, Any]:
        """Empty for what is none."""
        return result_of(self.message)


class Asking:
    """Every method raises `Fault` for what cannot be asked or is not answered in time."""

    def __init__(self, url: str, client: Client, more: HeaderList) -> None:
        """`more` goes with each request: what lets us in."""
        self._origin = Origin.of(url)
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._client = client
        self._more = more

    async def post(self, message: Message, headers: HeaderList, within_s: float = ANSWER_S) -> Reply:
        fields = [(b"content-type", b"application/json"), (b"accept", BOTH), *headers]
        return await self._exchange("POST", fields, message.raw, message.id, within_s)

    async def get(
        self, headers: HeaderList, *, until: RequestId | None = None, within_s: float = ANSWER_S
    ) -> Reply:
        """A stream is read until the answer to that request comes, or until the time is up: that is no fault then."""
        return await self._exchange("GET", [(b"accept", SSE), *headers], b"", until, within_s)

    async def delete(self, headers: HeaderList, within_s: float = ANSWER_S) -> Reply:
        return await self._exchange("DELETE", headers, b"", None, within_s)

    async def _exchange(
        self, method: str, headers: HeaderList, body: bytes, id: RequestId | None, within_s: float
    ) -> Reply:
        # The event loop's clock may tick in milliseconds.
        now = time.perf_counter
        began = now()
        timeouts = Timeouts(connect_s=5.0, head_s=within_s, gap_s=within_s, total_s=within_s)
        fields = [*headers, *self._more, (b"accept-encoding", b"identity")]
        response = await self._client.send(self._origin, method, self._target, fields, body, timeouts)
        try:
            values = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
            reply = Reply(response.status, values)
            if reply.is_stream:
                await _read_stream(reply, response, id, lambda: (now() - began) * 1000, method == "GET")
            else:
                body = await response.read(MAX_BODY_BYTES)
                reply.message = _answer_in(body, id)
                reply.flaw = "" if reply.message is not None else _flaw_in(body, id)
            reply.took_ms = (now() - began) * 1000
            return reply
        finally:
            response.abort()


async def _read_stream(
    reply: Reply, response: ClientResponse, id: RequestId | None, elapsed_ms: Any, may_stay_open: bool
) -> None:
    decoder = SseDecoder(MAX_BODY_BYTES)
    try:
        async for piece in response:
            if reply.first_ms is None:
                reply.first_ms = elapsed_ms()
            for event in decoder.feed(piece):
                if max(len(reply.ids), len(reply.arrivals_ms)) >= MAX_EVENTS:
                    raise Fault(FaultKind.UPSTREAM_INVALID, reason="too_many_events")
                if event.id is not None:
                    reply.ids.append(event.id)
                reply.has_endpoint |= event.event == b"endpoint"
                if not event.data:
                    continue
                reply.arrivals_ms.append(elapsed_ms())
                message = _answer_in(event.data, id)
                if message is not None:
                    reply.message = message
                    return
            if may_stay_open and id is None and reply.first_ms is not None:
                return
    except Fault as fault:
        if not may_stay_open or fault.kind is not FaultKind.DEADLINE:
            raise


def _answer_in(body: bytes, id: RequestId | None) -> Message | None:
    """The response, if that is one. Servers answer what they could not read without an id."""
    if not body:
        return None
    try:
        message = jsonrpc.parse(body)
    except Fault:
        return None
    return message if message.is_response and (id is None or message.id in (id, None)) else None


def _flaw_in(body: bytes, id: RequestId | None) -> str:
    if not body:
        return "a body that is empty"
    try:
        message = jsonrpc.parse(body)
    except Fault as fault:
        kind = "no JSON" if fault.kind is FaultKind.PARSE else "no JSON-RPC"
        return f"a body that is {kind}: {on_one_line(body[:_SHOWN_BYTES].decode('utf-8', 'replace'))}"
    if not message.is_response:
        return "a message that is no response"
    return f"the id {message.id!r} in place of {id!r}"


def modern(id: RequestId, method: str, params: dict[str, Any] | None = None) -> tuple[Message, HeaderList]:
    """A modern request and the headers that repeat it."""
    envelope = {
        Meta.PROTOCOL_VERSION: MODERN_VERSIONS[0],
        Meta.CLIENT_CAPABILITIES: {},
        Meta.CLIENT_INFO: CLIENT_INFO,
    }
    given = params or {}
    meta = {**given.get("_meta", {}), **envelope}
    headers = [
        (Header.PROTOCOL_VERSION, MODERN_VERSIONS[0].encode()),
        (Header.METHOD, method.encode()),
    ]
    if (name := NAMED_BY.get(method)) is not None:
        headers.append((Header.NAME, encode_value(given[name])))
    return jsonrpc.request(id, method, {**given, "_meta": meta}), headers


def legacy(id: RequestId, version: str) -> Message:
    """`initialize`."""
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT_INFO}
    return jsonrpc.request(id, "initialize", params)
