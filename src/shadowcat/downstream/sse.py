"""The endpoint of HTTP+SSE, the transport of 2024-11-05: a GET opens a stream, which says where to post messages."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qs

from shadowcat.aio import Tasks
from shadowcat.core.exchange import ANONYMOUS, Caller
from shadowcat.core.negotiate import Course, claims_of, course_of
from shadowcat.core.ports import Gateway
from shadowcat.downstream.answers import accepted, event_response, fault_response, not_allowed
from shadowcat.downstream.body import (
    address_of,
    asks_something,
    batch_of,
    is_batch,
    version_of,
    whom_to_answer,
)
from shadowcat.downstream.cors import preflight, with_cors
from shadowcat.downstream.guard import SSE, Guard, require_accept, require_json
from shadowcat.downstream.late import comes_too_late, require_in_time
from shadowcat.downstream.sse_stream import SseStream
from shadowcat.downstream.streamable import EndpointOptions
from shadowcat.downstream.trace import with_trace
from shadowcat.errors import Fault, FaultKind, proxy_stops
from shadowcat.http.message import Request, Response
from shadowcat.wire import jsonrpc

_ALLOW_STREAM = b"GET, OPTIONS"
_ALLOW_MESSAGES = b"POST, OPTIONS"
_SESSION = "sessionId"
_ID = re.compile(r"[0-9a-f]{32}")


class SseEndpoint:
    def __init__(
        self,
        gateway: Gateway,
        options: EndpointOptions,
        guard: Guard,
        sessions: int,
        route: str | None = None,
    ) -> None:
        """`sessions` is how many streams may be open at a time."""
        self._gateway = gateway
        self._guard = guard
        self._options = options
        self._limit = sessions
        self._caller = Caller(ANONYMOUS, route or options.sse_path)
        self._messages_path = f"{options.sse_path.rstrip('/')}/messages"
        self._streams: dict[str, SseStream] = {}
        self._tasks = Tasks("old sessions")
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._streams)

    def serves(self, path: str) -> bool:
        return path in (self._options.sse_path, self._messages_path)

    def takes_messages_at(self, path: str) -> bool:
        return path == self._messages_path

    async def handle(self, request: Request) -> Response:
        try:
            self._guard.check(request.headers)
        except Fault as fault:
            return fault_response(fault, None)
        try:
            response = await self._checked(request)
        except Fault as fault:
            response = fault_response(fault, whom_to_answer(request.body))
        origin = request.headers.get(b"origin")
        return response if origin is None else with_cors(response, origin)

    async def _checked(self, request: Request) -> Response:
        is_stream = request.path == self._options.sse_path
        allow = _ALLOW_STREAM if is_stream else _ALLOW_MESSAGES
        match request.method:
            case "GET" if is_stream:
                return self._open(request)
            case "POST" if not is_stream:
                return await self._post(request)
            case "OPTIONS":
                return preflight(request, allow)
            case _:
                return not_allowed(allow)

    def _open(self, request: Request) -> Response:
        require_accept(request.headers, SSE)
        if self._is_draining:
            # It would have no end of its own: the drain would wait for it in vain.
            raise proxy_stops()
        if len(self._streams) >= self._limit:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_sessions")
        id = secrets.token_hex(16)

        def ended(stream: SseStream) -> None:
            if self._streams.pop(id, None) is not None:
                self._tasks.spawn(stream.end(), "end")

        stream = SseStream(
            self._gateway, self._caller, address_of(request), f"{self._messages_path}?{_SESSION}={id}", ended
        )
        self._streams[id] = stream
        return event_response(stream, self._options.keepalive_s)

    async def _post(self, request: Request) -> Response:
        headers = request.headers
        require_json(headers)
        version = version_of(headers)
        if is_batch(request.body):
            elements = batch_of(request.body, version)
            if asks_something(elements):
                require_in_time(request)
            await self._stream(request).take_batch(elements)
            return accepted()
        message = jsonrpc.parse(request.body)
        if course_of(message.kind, claims_of(message, version)) is not Course.LEGACY:
            raise Fault(FaultKind.INVALID_REQUEST, "This transport is for protocol versions with sessions")
        stream = self._stream(request)
        if comes_too_late(message, request):
            # Not by a status: on one, the client of the Python SDK posts nothing more, not even an answer.
            stream.refuse(message, proxy_stops())
        else:
            await stream.take(with_trace(message, request.headers))
        return accepted()

    def has_session_of(self, request: Request) -> bool:
        """Whether the session that a message is posted for is one of these."""
        try:
            self._stream(request)
        except Fault:
            return False
        return True

    def _stream(self, request: Request) -> SseStream:
        """The one that the URL names. Raises `Fault`: 400 where it names none, 404 where that is not there."""
        _, _, query = request.target.partition(b"?")
        try:
            named = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=10).get(_SESSION)
        except ValueError:
            named = []
        if named is None:
            told = f"{_SESSION} is missing in the URL"
            raise Fault(FaultKind.INVALID_REQUEST, told, reason="session_id_missing")
        if len(named) != 1 or not _ID.fullmatch(named[0]):
            told = f"{_SESSION} in the URL is malformed"
            raise Fault(FaultKind.INVALID_REQUEST, told, reason="session_id_malformed")
        found = self._streams.get(named[0])
        if found is None:
            raise Fault(FaultKind.SESSION_UNKNOWN)
        return found

    # The end.

    def drain(self) -> None:
        """Ends each stream once what runs on it is answered, and opens no more."""
        self._is_draining = True
        for stream in tuple(self._streams.values()):
            stream.drain()

    async def aclose(self, within_s: float) -> None:
        """For when the server has closed its connections, and every stream with them: so long their sessions may take
        to end."""
        await self._tasks.finish(within_s)
