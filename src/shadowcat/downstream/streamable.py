"""The Streamable HTTP endpoint that clients of every revision speak to.

Checks go from the outside in, and each refusal names the first thing that is wrong: Host and Origin, HTTP method,
Accept and Content-Type, JSON, shape, era, and then what that era asks for. Nothing refused gets further.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache, partial
from typing import Annotated, Any

from msgspec import Meta, Struct

from shadowcat.core.exchange import ANONYMOUS, Caller, Elsewhere, Forwarded, Piece
from shadowcat.core.negotiate import (
    Course,
    RoutingHeaders,
    check_routing,
    claims_of,
    course_of,
    era_of_header,
)
from shadowcat.core.peer import SEAL_HEADER
from shadowcat.core.ports import ClientSession, ClientStream, Gateway
from shadowcat.core.session import SESSION_ID
from shadowcat.downstream import direct
from shadowcat.downstream.answers import (
    JSON_HEAD,
    SSE_HEAD,
    accepted,
    empty_stream_response,
    encode_piece,
    fault_response,
    json_response,
    not_allowed,
    relayed_response,
    stream_response,
)
from shadowcat.downstream.body import (
    address_of,
    asks_something,
    batch_of,
    is_batch,
    require_batches,
    version_of,
    whom_to_answer,
)
from shadowcat.downstream.cors import preflight, with_cors
from shadowcat.downstream.direct import Admission
from shadowcat.downstream.guard import JSON, SSE, Guard, HostName, PageOrigin, require_accept, require_json
from shadowcat.downstream.late import comes_too_late, is_late, require_in_time
from shadowcat.downstream.peers import MISDIRECTED, Peers
from shadowcat.downstream.trace import TRACEPARENT, with_trace
from shadowcat.errors import Fault, FaultKind, proxy_stops
from shadowcat.http.later import Later
from shadowcat.http.message import HeaderList, Headers, Request, Response, encode_head
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import (
    LEGACY_VERSIONS,
    Era,
    Header,
    Method,
)

_ALLOW_LEGACY = b"GET, POST, DELETE, OPTIONS"
_ALLOW_MODERN = b"POST"
_NODE_S = 15.0
"""How long a request waits from when a node first did not answer: longer than a lease, and than one takes to drain."""
_LOOK_AGAIN_S = 0.25
_LEAVING_RETRY_MS = (1_000, 5_000)
"""Drawn from for each client that is sent away, so that they do not all come back at once."""
_LAST_EVENT_ID = re.compile(rb"[\x21-\x7e]{1,256}")


class EndpointOptions(Struct, frozen=True):
    path: Annotated[
        str,
        Meta(
            title="a path that begins with a slash",
            pattern="^/",
            examples=["/mcp"],
            description="Path of the endpoint.",
        ),
    ] = "/mcp"
    sse_path: Annotated[
        str,
        Meta(
            title="a path that begins with a slash, with spaces and other letters written as %XX",
            pattern=r"^/[!\"$->@-~]*$",
            examples=["/sse"],
            description="Path of the endpoint for clients that speak HTTP+SSE.",
        ),
    ] = "/sse"
    allow_origins: Annotated[
        frozenset[PageOrigin], Meta(description="Origins of web pages that may use the proxy.")
    ] = frozenset()
    allow_hosts: Annotated[
        frozenset[HostName],
        Meta(description="Host names that clients may use, in addition to those of loopback."),
    ] = frozenset()
    retry_ms: Annotated[
        int,
        # The official clients try twice: they outlive about twice this.
        Meta(ge=0, description="How long clients are told to wait before they resume."),
    ] = 3_000
    keepalive_s: Annotated[
        float, Meta(gt=0, description="How often a comment is sent on a silent stream.")
    ] = 15.0

    def __post_init__(self) -> None:
        if self.path in (self.sse_path, f"{self.sse_path.rstrip('/')}/messages"):
            raise ValueError(f"path {self.path} and sse_path {self.sse_path} get in each other's way")


class StreamableEndpoint:
    """`peers` are the other nodes, where there are any; `route` says where it leads, if the path alone does not."""

    def __init__(
        self,
        gateway: Gateway,
        options: EndpointOptions,
        guard: Guard,
        peers: Peers | None = None,
        route: str | None = None,
    ) -> None:
        self.gateway = gateway
        self._guard = guard
        self._options = options
        self._peers = peers
        self._is_leaving = False
        self.caller = Caller(ANONYMOUS, route or options.path)

    def begin_to_leave(self) -> None:
        """Whoever is told from now on when to come back is told a time of his own."""
        self._is_leaving = True
        if self._peers is not None:
            self._peers.part(self._retry_ms)

    def handle(self, request: Request) -> Later | Coroutine[Any, Any, Response]:
        notes = request.headers.notes
        noted = None if notes is None else notes.get(self)
        if noted is None or noted[0] is not self._guard.terms:
            noted = self._guard.terms, self._admission(request)
            if notes is not None:
                notes[self] = noted
        admission = noted[1]
        if admission is not None:
            later = direct.begin(self, request, admission)
            if later is not None:
                return later
        return self.respond(request)

    def _admission(self, request: Request) -> Admission | None:
        """What there is to know from the head of a call that is nothing unusual."""
        headers = request.headers
        try:
            version = version_of(headers)
            self._guard.check(headers)
            require_accept(headers, JSON, SSE)
            require_json(headers)
            session_id = _session_id(headers)
        except Fault:
            return None
        is_usual = (
            request.method == "POST"
            and request.path == self._options.path
            and (version is None or version in LEGACY_VERSIONS)
            and headers.get(b"origin") is None
            and headers.get(SEAL_HEADER) is None
            and headers.get(TRACEPARENT) is None
            and not is_late(request)
        )
        if session_id is None or not is_usual:
            return None
        session = (Header.SESSION_ID, session_id.encode())
        return Admission(
            session_id, encode_head(200, [*JSON_HEAD, session]), encode_head(200, [*SSE_HEAD, session])
        )

    async def respond(self, request: Request) -> Response:
        """As `handle`, for whoever waits for it anyway."""
        headers = request.headers
        is_passed_on = self._peers is not None and self._peers.vouches_for(request)
        try:
            if not is_passed_on:
                self._guard.check(headers)
        except Fault as fault:
            return fault_response(fault, None)
        try:
            response = await self._checked(request)
        except _OnAnotherNode as there:
            response = Response(MISDIRECTED) if is_passed_on else await self._passed_on(request, there)
        origin = headers.get(b"origin")
        return response if origin is None else with_cors(response, origin)

    async def _passed_on(self, request: Request, there: _OnAnotherNode) -> Response:
        """The answer of the node that has the session, or ours once that node is gone and the session is here."""
        loop = asyncio.get_running_loop()
        until = None
        while self._peers is not None and (until is None or loop.time() < until):
            try:
                response = await self._peers.pass_on(request, there.node, there.is_held)
                if response is not None:
                    return response
                # What came before was the node's time to answer: it may have had the request for long.
                until = until or loop.time() + _NODE_S
                await asyncio.sleep(_LOOK_AGAIN_S)
                return await self._checked(request)
            except _OnAnotherNode as still:
                there = still
            except Fault as fault:
                return _told_in_session(fault, whom_to_answer(request.body))
        fault = Fault(FaultKind.OVER_CAPACITY, reason="session_on_another_node")
        return _told_in_session(fault, whom_to_answer(request.body))

    async def _checked(self, request: Request) -> Response:
        try:
            if request.path != self._options.path:
                hint = f"not found: the MCP endpoint is {self._options.path}"
                if request.method == "POST":
                    # Clients show their users the sentence of a JSON-RPC error; of other text some show nothing.
                    raise Fault(FaultKind.METHOD_NOT_FOUND, f"HTTP path {hint}", reason="not_the_endpoint")
                return Response(404, [(b"content-type", b"text/plain")], f"{hint}\n".encode())
            match request.method:
                case "POST":
                    return await self._post(request, version_of(request.headers))
                case "GET":
                    return await self._get(request)
                case "DELETE":
                    return await self._delete(request)
                case "OPTIONS":
                    return preflight(request, _ALLOW_LEGACY)
                case _:
                    return not_allowed(_ALLOW_LEGACY)
        except Fault as fault:
            return fault_response(fault, whom_to_answer(request.body))

    # POST

    async def _post(self, request: Request, version: str | None) -> Response:
        headers = request.headers
        require_accept(headers, JSON, SSE)
        require_json(headers)
        body = request.body
        if body[:1] != b"{" and is_batch(body):
            return await self._batch(request, version)
        try:
            message = jsonrpc.parse(body)
        except Fault as fault:
            return fault_response(fault, jsonrpc.readable_id(body))
        id = message.id if message.is_request else None
        try:
            match course_of(message.kind, claims_of(message, version)):
                case Course.DROP:
                    return accepted()
                case Course.MODERN:
                    return await self._modern(request, message)
                case Course.LEGACY:
                    return await self._legacy(request, message, version)
        except Fault as fault:
            return fault_response(fault, id)

    async def _modern(self, request: Request, message: Message) -> Response:
        require_in_time(request)
        headers = request.headers
        routing = _routing(headers)
        check_routing(message, routing)
        # Over HTTP a modern client cancels by going away.
        task = asyncio.current_task()
        assert task is not None
        request.cancel_on_disconnect(task.cancel)
        message = with_trace(message, headers)
        answer = await self.gateway.exchange(message, self.caller, _forwarded(headers), address_of(request))
        if answer.whole is not None:
            return json_response(answer.whole, answer.status)
        assert answer.stream is not None
        return relayed_response(answer.stream, self._options.keepalive_s)

    async def _legacy(self, request: Request, message: Message, version: str | None) -> Response:
        message = with_trace(message, request.headers)
        if message.is_request and message.method == Method.INITIALIZE:
            return await self._initialize(request, message)
        session = await self._session(request, version)
        if not message.is_request:
            await session.receive(message)
            return accepted()
        if comes_too_late(message, request):
            return _told_in_session(proxy_stops(), message.id)
        return await self.in_session(session, message.id, session.request(message))

    async def in_session(
        self,
        session: ClientSession,
        id: RequestId | None,
        asking: Awaitable[Message | ClientStream | None],
    ) -> Response:
        try:
            outcome = await asking
        except Fault as fault:
            return _told_in_session(fault, id)
        if isinstance(outcome, Message):
            return json_response(outcome, 200, _session_header(session))
        return self._stream(session, outcome)

    async def _initialize(self, request: Request, message: Message) -> Response:
        require_in_time(request)
        stale = _session_id(request.headers)
        if stale is not None and await self.gateway.find(stale, self.caller) is not None:
            raise Fault(FaultKind.INVALID_REQUEST, "This session is already initialized")
        session, answer = await self.gateway.open(message, self.caller, address_of(request))
        return json_response(answer, 200, _session_header(session) if session is not None else None)

    async def _batch(self, request: Request, version: str | None) -> Response:
        elements = batch_of(request.body, version)
        session = await self._session(request, version)
        require_batches(session)
        if asks_something(elements):
            require_in_time(request)
            return self._stream(session, await session.batch(elements))
        for element in elements:
            if isinstance(element, Message):
                await session.receive(element)
        return accepted()

    # GET, DELETE, OPTIONS

    async def _get(self, request: Request) -> Response:
        headers = request.headers
        version = version_of(headers)
        if era_of_header(version) is Era.MODERN:
            return not_allowed(_ALLOW_MODERN)
        require_accept(headers, SSE)
        session = await self._session(request, version)
        last_event_id = headers.get(Header.LAST_EVENT_ID)
        if last_event_id is not None and (
            Header.LAST_EVENT_ID in headers.repeated or not _LAST_EVENT_ID.fullmatch(last_event_id)
        ):
            raise Fault(FaultKind.INVALID_REQUEST, "Last-Event-ID is not an event id")
        stream = await session.listen(last_event_id)
        if stream is None:
            # The TypeScript SDK 1.x comes back after an error response, and again whenever the stream that it gets
            # then ends. 204 is how an event stream is told to stop.
            return Response(204, _session_header(session))
        return self._stream(session, stream)

    async def _delete(self, request: Request) -> Response:
        version = version_of(request.headers)
        if era_of_header(version) is Era.MODERN:
            return not_allowed(_ALLOW_MODERN)
        await self.gateway.end(await self._session(request, version))
        return Response(200)

    # Parts

    def _stream(self, session: ClientSession, stream: ClientStream | None) -> Response:
        if stream is None:
            return empty_stream_response()
        return stream_response(stream, self._retry_ms, self._options.keepalive_s, _session_header(session))

    def events(self, piece: Piece) -> bytes:
        return encode_piece(piece, self._retry_ms)

    def _retry_ms(self) -> int:
        return random.randint(*_LEAVING_RETRY_MS) if self._is_leaving else self._options.retry_ms

    async def _session(self, request: Request, version: str | None) -> ClientSession:
        """The session a request names. Raises `Fault`: 400 without one, 404 for one that is not the caller's."""
        session_id = _session_id(request.headers)
        if session_id is None:
            raise Fault(FaultKind.INVALID_REQUEST, "Mcp-Session-Id is missing", reason="session_id_missing")
        session = await self.gateway.find(session_id, self.caller)
        if session is None:
            raise Fault(FaultKind.SESSION_UNKNOWN)
        if isinstance(session, Elsewhere):
            raise _OnAnotherNode(session.node, partial(self._is_elsewhere, session_id))
        if version is not None and version not in LEGACY_VERSIONS:
            raise Fault(FaultKind.INVALID_REQUEST, "MCP-Protocol-Version names a version not served here")
        return session

    async def _is_elsewhere(self, session_id: str) -> bool:
        try:
            return isinstance(await self.gateway.find(session_id, self.caller), Elsewhere)
        except Fault:
            # Nobody can tell at the moment: what was sent to the other node is not to be sent anywhere else.
            return True


class _OnAnotherNode(Exception):
    """`is_held` asks anew whether it still is; if not, this node has taken the session over."""

    def __init__(self, node: str, is_held: Callable[[], Awaitable[bool]]) -> None:
        self.node = node
        self.is_held = is_held


def _told_in_session(fault: Fault, id: RequestId | None) -> Response:
    """Any other status would end the session for some clients, and the transport for others; only what says that the
    session is gone, or that this was no request, is said by it.
    """
    told_by_status = fault.kind in (FaultKind.SESSION_UNKNOWN, FaultKind.INVALID_REQUEST) or id is None
    return fault_response(fault, id, status=None if told_by_status else 200)


def _session_id(headers: Headers) -> str | None:
    value = headers.get(Header.SESSION_ID)
    if value is None:
        return None
    text = _as_session_id(value)
    if text is None or Header.SESSION_ID in headers.repeated:
        raise Fault(FaultKind.INVALID_REQUEST, "Mcp-Session-Id is malformed", reason="session_id_malformed")
    return text


@lru_cache(maxsize=1024)
def _as_session_id(value: bytes) -> str | None:
    text = value.decode("latin-1")
    return text if SESSION_ID.fullmatch(text) else None


def _session_header(session: ClientSession) -> HeaderList:
    return [(Header.SESSION_ID, session.id.encode("ascii"))]


def _routing(headers: Headers) -> RoutingHeaders:
    params = tuple((name, value) for name, value in headers if name.startswith(Header.PARAM_PREFIX))
    return RoutingHeaders(headers.get(Header.METHOD), headers.get(Header.NAME), params, headers.repeated)


def _forwarded(headers: Headers) -> Forwarded:
    """What of a modern request's headers goes on: the routing ones, which the body was checked against."""
    return tuple(
        (name, value) for name, value in headers if name in _FORWARDED or name.startswith(Header.PARAM_PREFIX)
    )


_FORWARDED = frozenset({Header.PROTOCOL_VERSION, Header.METHOD, Header.NAME})
