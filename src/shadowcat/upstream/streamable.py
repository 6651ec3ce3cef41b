"""Streamable HTTP towards a server: one POST per message, a GET for the standalone stream, in both eras."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from shadowcat.core.exchange import Answer, Forwarded, MessageStream, Rest
from shadowcat.core.session import promise_of
from shadowcat.core.statistics import UpstreamStatistics
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, OutgoingHead
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList
from shadowcat.upstream.events import EventMessages, ReconnectPolicy, ResumedMessages, StreamCounters
from shadowcat.upstream.first_words import FirstWords, is_stream
from shadowcat.upstream.interpret import JSON, SSE, answer_of, media_type, refusal_of, whole_answer
from shadowcat.upstream.requests import Requests
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import VERSION_HEADER_VERSIONS, Header, Method

log = logging.getLogger("shadowcat.upstream")

_SESSION_ID_BYTES = range(1, 1025)

_POST: HeaderList = [
    (b"content-type", JSON),
    (b"accept", b"application/json, text/event-stream"),
    (b"accept-encoding", b"identity"),
]
_NOT_NOW = frozenset({400, 404, 409, 429})
"""To a GET: the session is lost, or a stream of before is not known to have ended, or it is too much at present."""
_GET: HeaderList = [(b"accept", SSE), (b"accept-encoding", b"identity")]

CALL = Timeouts(head_s=300.0, gap_s=300.0)
STREAM = Timeouts(head_s=30.0, gap_s=None)
END = Timeouts(pool_s=1.0, connect_s=2.0, head_s=5.0, gap_s=5.0, total_s=5.0)


class StreamableUpstream:
    """One server's endpoint. `client` is shared with whoever else uses it, and closed by its owner."""

    def __init__(
        self,
        name: str,
        url: str,
        client: Client,
        call: Timeouts = CALL,
        reconnect: ReconnectPolicy | None = None,
    ) -> None:
        self.name = name
        self.requests = Requests(url, client, call.gap_s)
        self.call = call
        self._subscription = replace(call, gap_s=None)
        # The rest of a call may be as long in coming as its beginning; between notifications any time may pass.
        self.rest_of_call = replace(STREAM, gap_s=call.gap_s)
        self.reconnect = reconnect or ReconnectPolicy()
        self.streams = StreamCounters()

    async def open(self, initialize: Message) -> tuple[StreamableLink, Message]:
        response = await self.requests.send(self.requests.head("POST", _POST), initialize.raw, self.call)
        answer = await self.answer(response, initialize)
        message = await final_of(answer, initialize)
        upstream_id: str | None = None
        if message.kind is Kind.RESULT and 200 <= response.status < 300:
            # Python servers put a fresh, already dead id on refusals: only a successful result's id counts.
            upstream_id = _session_id(response)
        try:
            version = promise_of(message).protocol_version if message.kind is Kind.RESULT else ""
        except Fault:
            await StreamableLink(self, upstream_id, "").end()
            raise
        return StreamableLink(self, upstream_id, version), message

    def attach(self, upstream_id: str | None, version: str) -> StreamableLink:
        return StreamableLink(self, upstream_id, version)

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        # A subscription is silent for as long as nothing changes.
        timeouts = self._subscription if request.method == Method.LISTEN else self.call
        response = await self.requests.send(
            self.requests.head("POST", [*_POST, *forwarded]), request.raw, timeouts
        )
        return await self.answer(response, request)

    def statistics(self) -> UpstreamStatistics:
        streams, connections = self.streams, self.requests.connections()
        return UpstreamStatistics(
            connections_idle=connections.idle,
            connections_taken=connections.taken,
            connections_waited_for=connections.waiting,
            streams_open=streams.opened - streams.ended,
            streams_opened=streams.opened,
            streams_given_up=streams.given_up,
            stream_seconds=streams.lifetime_s,
            reconnect_attempts=streams.reconnect_attempts,
            reconnects=streams.reconnects,
            events_repeated=streams.duplicates,
            lines_of_garbage=streams.garbage,
        )

    async def aclose(self) -> None:
        """Nothing of its own to close."""

    # For links.

    async def answer(
        self, response: ClientResponse, request: Message, link: StreamableLink | None = None
    ) -> Answer:
        """What the response means; an event stream of a link's is one that can be resumed."""
        try:
            kind = media_type(response.headers.get(b"content-type"))
            if response.status == 200:
                if kind == JSON:
                    return answer_of(request, 200, await self.requests.body(response))
                if kind == SSE:
                    if link is not None:
                        return Answer(stream=link.resumed(response))
                    return Answer(stream=EventMessages(response, self.call.gap_s, self.streams))
            elif not 200 <= response.status < 300:
                body = await self.requests.body(response)
                in_session = link is not None and link.upstream_id is not None
                return refusal_of(request, response.status, kind, body, in_session=in_session)
            # 202 to a request, or a type that is neither: no answer will come from this.
            told = f"The upstream answered with HTTP {response.status} and neither JSON nor an event stream"
            raise Fault(FaultKind.UPSTREAM_FAILED, told, reason="upstream_sent_no_answer", sent=True)
        except BaseException:
            # Given up, by the client or by us: over HTTP a modern server is told so by the connection's end.
            response.abort()
            raise


class StreamableLink:
    """One legacy session with the server."""

    def __init__(self, upstream: StreamableUpstream, upstream_id: str | None, version: str) -> None:
        self.upstream_id = upstream_id
        self._upstream = upstream
        self._requests = upstream.requests
        session: HeaderList = []
        if upstream_id is not None:
            session.append((Header.SESSION_ID, upstream_id.encode("ascii")))
        if version in VERSION_HEADER_VERSIONS:
            session.append((Header.PROTOCOL_VERSION, version.encode("ascii")))
        self._post = self._requests.head("POST", [*_POST, *session])
        self._session_headers = session

    async def exchange(self, request: Message) -> Answer:
        response = await self._requests.send(self._post, request.raw, self._upstream.call)
        return await self._upstream.answer(response, request, self)

    def ask(
        self, request: Message, then: Callable[[Answer | Rest[Answer]], object]
    ) -> Callable[[], object] | None:
        on_head = partial(self._heard, request, then)
        response = self._requests.ask(self._post, request.raw, self._upstream.call, on_head)
        return None if response is None else response.abort

    def _heard(
        self, request: Message, then: Callable[[Answer | Rest[Answer]], object], response: ClientResponse
    ) -> None:
        answer = whole_answer(request, response)
        if answer is not None:
            then(answer)
            return
        rest = partial(self._rest, request, response)
        if response.fault is None and is_stream(response):
            FirstWords(request, then, rest).heard(response)
        else:
            then(rest)

    async def _rest(self, request: Message, response: ClientResponse) -> Answer:
        if response.fault is not None and not response.status:
            raise response.fault.anew()
        # What broke after its head may be a stream that can be resumed: that is found when it is read.
        call = self._upstream.call
        response = await self._requests.followed(response, self._post, request.raw, call)
        return await self._upstream.answer(response, request, self)

    async def send(self, message: Message) -> None:
        response = await self._requests.send(self._post, message.raw, self._upstream.call)
        if 200 <= response.status < 300:
            await response.aclose()
            return
        kind = media_type(response.headers.get(b"content-type"))
        body = await self._requests.body(response)
        refusal_of(None, response.status, kind, body, in_session=self.upstream_id is not None)

    async def listen(self) -> MessageStream | None:
        response = await self._requests.send(self._get(), b"", STREAM)
        kind = media_type(response.headers.get(b"content-type"))
        if response.status == 200 and kind == SSE:
            return self.resumed(response, standalone=True)
        if response.status in _NOT_NOW or 500 <= response.status != 501:
            body = await self._requests.body(response)
            refusal_of(None, response.status, kind, body, in_session=self.upstream_id is not None)
        # 405 says it in so many words; the rest of them mean the same for us: there is nothing to listen to.
        await response.aclose()
        return None

    def _get(self, *more: tuple[bytes, bytes]) -> OutgoingHead:
        return self._requests.head("GET", [*_GET, *self._session_headers, *more])

    def resume(self, cursor: bytes, *, standalone: bool) -> MessageStream:
        return self.resumed(cursor, standalone=standalone)

    def resumed(self, begun: ClientResponse | bytes, *, standalone: bool = False) -> ResumedMessages:
        upstream = self._upstream
        # One bad event ends the request it may have answered; on a stream that answers nothing it is left out.
        return ResumedMessages(
            begun,
            self._reopen_standalone if standalone else self._reopen,
            upstream.streams,
            upstream.reconnect,
            upstream.call.gap_s,
            skip_garbage=standalone,
        )

    async def _reopen(self, last_event_id: bytes) -> ClientResponse:
        return await self._rest_after(last_event_id, self._upstream.rest_of_call)

    async def _reopen_standalone(self, last_event_id: bytes) -> ClientResponse:
        return await self._rest_after(last_event_id, STREAM)

    async def _rest_after(self, last_event_id: bytes, timeouts: Timeouts) -> ClientResponse:
        response = await self._requests.send(self._get((Header.LAST_EVENT_ID, last_event_id)), b"", timeouts)
        kind = media_type(response.headers.get(b"content-type"))
        if response.status == 200 and kind == SSE:
            return response
        body = await self._requests.body(response)
        if response.status != 200:
            refusal_of(None, response.status, kind, body, in_session=self.upstream_id is not None)
        raise Fault(FaultKind.UPSTREAM_FAILED, reason="upstream_sent_no_stream", sent=True)

    async def detach(self) -> None:
        """Connections belong to requests, and end with those."""

    async def end(self) -> None:
        if self.upstream_id is None:
            return
        try:
            response = await self._requests.send(
                self._requests.head("DELETE", self._session_headers), b"", END
            )
            await response.aclose()
        except Fault as fault:
            # It may be gone, or not allow it: the client's session ends all the same.
            log.debug("upstream %s: DELETE failed: %s", self._upstream.name, fault.reason)


async def final_of(answer: Answer, request: Message) -> Message:
    """The response itself, for a request whose stream nobody else reads."""
    if answer.whole is not None:
        return answer.whole
    assert answer.stream is not None
    try:
        async for batch in answer.stream:
            for message in batch:
                if message.is_response and message.id == request.id:
                    return message
    finally:
        await answer.stream.aclose()
    raise Fault(FaultKind.UPSTREAM_FAILED, reason="upstream_sent_no_answer", sent=True)


def _session_id(response: ClientResponse) -> str | None:
    raw = response.headers.get(Header.SESSION_ID)
    if raw is None:
        return None
    if Header.SESSION_ID in response.headers.repeated or len(raw) not in _SESSION_ID_BYTES:
        raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_session_id", sent=True)
    if not all(0x21 <= byte <= 0x7E for byte in raw):
        raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_session_id", sent=True)
    return raw.decode("ascii")
