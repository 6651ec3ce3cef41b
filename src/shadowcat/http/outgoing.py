"""One connection to a server: a request goes out on it, and its response comes back.

The connection is busy from a request's first byte to its response's last; then it goes back to the pool by itself,
also when the reader of the body has not got to its end yet. A response given up early takes its connection along; one
that is left is heard out for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, cast

import httptools

from shadowcat.errors import Fault, FaultKind, without_frames
from shadowcat.http.flow import WriteGate, has_arrived, notice_vanished
from shadowcat.http.framing import WITHOUT_BODY
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import ClientLimits, Timeouts
from shadowcat.http.memo import HeadMemo
from shadowcat.http.message import HeaderList, Headers, size_of
from shadowcat.http.pool import Pool
from shadowcat.http.turn import Sender, Turn

_FOREVER = float("inf")
_NO_TIMEOUTS = Timeouts()
_TRUSTED_S = 0.5
"""Servers do not close connections this soon, but for those that never keep one; the look costs 2 µs."""
_HEAR_OUT_S = 1.0
"""How long the end of a response that nobody reads may be in coming. Most servers end one within milliseconds."""

_FULL_READ_BYTES = 256_000
"""What a read of uvloop brings at most. Of a connection that has more it makes up to 32 such reads in one turn."""

ConnectionPool = Pool["OutgoingConnection", "asyncio.Future[OutgoingConnection | None]"]


class Owner(Protocol):
    """Who opens connections, and takes them back into the pool they came from."""

    def freed(self, pool: ConnectionPool, connection: OutgoingConnection, reusable: bool) -> None: ...

    def idle_lost(self, pool: ConnectionPool, connection: OutgoingConnection) -> None: ...


class OutgoingConnection(asyncio.Protocol):
    """`owner.freed` is called with whether it can be used again, once per request; `idle_lost` when it ends unused."""

    __slots__ = (
        "_closed",
        "_eof_ends_body",
        "_fed",
        "_fields",
        "_gate",
        "_heard_at",
        "_in_head",
        "_informational",
        "_is_heard_out",
        "_limits",
        "_memo",
        "_owner",
        "_parser",
        "_paused",
        "_pool",
        "_read_bytes",
        "_response",
        "_sender",
        "_timeouts",
        "_total_deadline",
        "_transport",
        "_turn",
        "_was_kept",
        "idle_since",
        "keep_s",
        "loop",
    )

    def __init__(
        self,
        limits: ClientLimits,
        turn: Turn,
        owner: Owner,
        pool: ConnectionPool,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.keep_s = limits.idle_s
        """How long the server lets it be idle: what its Keep-Alive header says, within our own bound."""
        self._limits = limits
        self._turn = turn
        self._owner = owner
        self._pool = pool
        self._gate = WriteGate(self.loop)
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._memo: HeadMemo[tuple[int, Headers]] = HeadMemo()
        self._response: ClientResponse | None = None
        self._closed = False
        self._is_heard_out = False
        self._was_kept = False
        """Whether the server left it open after a response before."""
        self._paused = False
        self._reset_head()
        self._timeouts = _NO_TIMEOUTS
        self._total_deadline = _FOREVER
        self._heard_at = 0.0
        """When it was asked, or something of the answer came, or its reader wanted more."""

    @property
    def is_closed(self) -> bool:
        return self._closed or self._transport.is_closing()

    def is_usable(self) -> bool:
        """Whether an idle connection still stands. A closed one is readable before asyncio has told us."""
        if self._closed or self._transport.is_closing():
            return False
        if self._was_kept and self.loop.time() - self.idle_since < _TRUSTED_S:
            return True
        self._was_kept = not has_arrived(self._transport)
        return self._was_kept

    async def send(self, request: bytes, body: bytes, timeouts: Timeouts) -> ClientResponse:
        """Sends one request; returns when the head of its response is here."""
        head: asyncio.Future[None] = self.loop.create_future()
        response = self.ask(request, body, timeouts, lambda _: head.done() or head.set_result(None))
        try:
            await head
        except asyncio.CancelledError:
            response.abort()
            raise
        if response.fault is not None:
            raise response.fault.anew()
        return response

    def ask(
        self,
        request: bytes,
        body: bytes,
        timeouts: Timeouts,
        on_head: Callable[[ClientResponse], object],
    ) -> ClientResponse:
        """Sends one request; `on_head` is called when the head of its response is here, or will never be."""
        now = self._heard_at = self.loop.time()
        self._timeouts = timeouts
        self._total_deadline = now + timeouts.total_s if timeouts.total_s else _FOREVER
        # A response that was recalled has left nothing behind.
        if self._fed or not self._in_head:
            self._reset_head()
        self._is_heard_out = False
        response = self._response = ClientResponse(self, on_head)
        if len(body) < 65536:
            self._sender.write(request + body)
        else:
            self._sender.write_two(request, body)
        return response

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sender = Sender(self._transport, self._turn, self.loop)
        notice_vanished(transport.get_extra_info("socket"), self._limits.vanished_s, ask=True)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            # Nobody asked: the server says something between requests, most often that it closes.
            self.abort()
            return
        if self._sender.held:
            # Said before the request has left, it cannot be the answer: most often the server is about to close.
            self._fail(_not_sent())
            return
        starts = self._in_head and not self._fed
        # To announce it is the last thing that is done: from then on the connection may be another request's.
        if starts and self._recall(response, data):
            response.announce()
            return
        if self._parse(response, data, starts):
            response.announce()
            if response.held_bytes > self._limits.buffered_bytes and self._response is response:
                self.pause_reading()
        if len(data) >= _FULL_READ_BYTES and not self.is_closed:
            self._let_others_go_first()

    def _let_others_go_first(self) -> None:
        """Before what comes as fast as it is read is read on: they would wait until eight megabytes are handled."""
        self._transport.pause_reading()
        self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._paused and not self.is_closed:
            self._transport.resume_reading()

    def _parse(self, response: ClientResponse, data: bytes, starts: bool) -> bool:
        """Whether the head is there. A fault has been told by itself."""
        self._read_bytes = len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            bad = Fault(FaultKind.UPSTREAM_INVALID, reason="bad_http", sent=True)
            # The response keeps it, and is in the frames that it went through.
            self._fail(bad, without_frames(error))
            # What follows a whole response ends the connection and takes nothing away from it.
            return response.complete
        self._fed += len(data)
        if self._in_head:
            if self._fed > self._limits.head_bytes:
                self._fail(Fault(FaultKind.UPSTREAM_INVALID, reason="head_too_large", sent=True))
            return False
        if self._response is not response:
            # Of one without a body the length says nothing: the next one would be given what follows it.
            if starts and not self._closed and response.status not in WITHOUT_BODY:
                self._memo.learn(data, (response.status, response.headers))
            return True
        if not self._paused:
            self._heard_at = self.loop.time()
        if self._fed > self._limits.head_bytes:
            # Nothing but chunk extensions or trailers, which httptools keeps without limit.
            self._fail(Fault(FaultKind.UPSTREAM_INVALID, reason="bad_http", sent=True))
        return True

    def _recall(self, response: ClientResponse, data: bytes) -> bool:
        """Takes a whole response whose head is the last one's; the parser stays between two responses."""
        recalled = self._memo.recall(data)
        if recalled is None:
            return False
        (response.status, headers), digits, body = recalled
        if digits:
            headers = headers.with_length(digits)
            self._memo.keep((response.status, headers))
        response.headers = headers
        if body:
            response.feed(body)
        self._complete(reusable=not self._transport.get_write_buffer_size())
        return True

    def eof_received(self) -> bool:
        response = self._response
        if response is not None and not self._in_head and self._eof_ends_body:
            self._complete(reusable=False)
            response.announce()
        return False

    def pause_writing(self) -> None:
        self._gate.close(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._response is None:
            self._owner.idle_lost(self._pool, self)
        elif self._sender.held:
            self._fail(_not_sent(), exc)
        else:
            self._fail(Fault(FaultKind.OUTCOME_UNKNOWN, reason="upstream_connection_lost", sent=True), exc)
        # It knows us: in a circle both would stay.
        del self._parser

    # Called by httptools.

    def _reset_head(self) -> None:
        self._in_head = True
        self._fed = 0
        self._fields: HeaderList = []
        self._informational = False
        self._eof_ends_body = False

    def on_message_begin(self) -> None:
        if self._response is None:
            raise ValueError("a response nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._fields
        fields.append((name, value))
        if len(fields) > self._limits.head_fields:
            raise ValueError("too many header fields")

    def on_headers_complete(self) -> None:
        response = self._response
        if response is None:
            raise ValueError("a response nobody asked for")
        status = self._parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                raise ValueError("no status, or an upgrade nobody asked for")
            self._informational = True
            return
        if self._fed + self._read_bytes > self._limits.head_bytes < size_of(self._fields):
            raise ValueError("too large header fields")
        headers = response.headers = Headers(self._fields)
        # What is added to them from here on are trailers: counted, never believed.
        self._fields = []
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            raise ValueError("a transfer coding nobody asked for")
        keep_alive = headers.get(b"keep-alive")
        if keep_alive is not None:
            self._note_keep_alive(keep_alive)
        self._in_head = False
        self._fed = -self._read_bytes
        self._eof_ends_body = coding is None and headers.get(b"content-length") is None
        response.status = status

    def on_body(self, body: bytes) -> None:
        response = self._response
        self._fed = -self._read_bytes
        if response is not None:
            response.feed(body)

    def on_message_complete(self) -> None:
        if self._informational:
            self._reset_head()
            return
        # A response that came before all of the request was taken leaves the connection in an unknown state.
        self._complete(
            reusable=self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        )

    # How a request ends.

    def _complete(self, *, reusable: bool) -> None:
        response, self._response = self._response, None
        if response is None:
            return
        if self._paused:
            self.resume_reading()
        response.finish()
        reusable = reusable and not self._closed
        self.idle_since = self.loop.time()
        if not reusable:
            self._closed = True
            if self._transport.get_write_buffer_size():
                # The rest of the request is of no use any more, and may never be taken.
                self._transport.abort()
            else:
                self._transport.close()
        self._owner.freed(self._pool, self, reusable)

    def _fail(self, fault: Fault, cause: BaseException | None = None) -> None:
        response, self._response = self._response, None
        if response is None:
            # It said more than it was asked: what follows would be taken for the answer to the next request.
            self.abort()
            return
        self._closed = True
        fault.__cause__ = cause
        response.finish(fault)
        self._transport.abort()
        self._owner.freed(self._pool, self, False)
        response.announce()

    def _note_keep_alive(self, value: bytes) -> None:
        for part in value.split(b","):
            name, _, seconds = part.strip().partition(b"=")
            if name.lower() == b"timeout" and seconds.isdigit():
                # A second less than promised: the promise runs from the server's side of the wire.
                self.keep_s = min(self._limits.idle_s, max(0.0, float(seconds[:6]) - 1.0))

    def pause_reading(self) -> None:
        """Once what came is more than a reader who is behind should have waiting."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self._closed:
            self._paused = False
            # The pause was our reader's: the server's time starts anew.
            self._heard_at = self.loop.time()
            self._transport.resume_reading()

    def hear_out(self) -> None:
        """Nobody reads the rest: it has to be short, and to end soon."""
        self._is_heard_out = True
        self._total_deadline = self.loop.time() + _HEAR_OUT_S
        self.resume_reading()

    def is_only_heard_out(self, pool: ConnectionPool) -> bool:
        """Whether it is that pool's, and nobody wants what still comes on it."""
        return self._is_heard_out and self._response is not None and self._pool is pool

    def lift_gap(self) -> None:
        self._timeouts = replace(self._timeouts, gap_s=None)

    def abort(self) -> None:
        if self._response is not None:
            self._fail(Fault(FaultKind.OUTCOME_UNKNOWN, reason="given_up", sent=True))
        else:
            self._closed = True
            self._transport.abort()

    def let_go(self) -> None:
        """Before anybody got it; perhaps it is not open yet."""
        transport: asyncio.Transport | None = getattr(self, "_transport", None)
        if transport is not None:
            transport.abort()

    def sweep(self, now: float) -> None:
        if self._response is None:
            return
        if now >= self._total_deadline:
            self._fail(Fault(FaultKind.DEADLINE, reason="total", sent=True))
            return
        phase, within_s = ("head", self._timeouts.head_s) if self._in_head else ("gap", self._timeouts.gap_s)
        # While it is paused the wait is our reader's, not the server's.
        if within_s and now >= self._heard_at + within_s and not self._paused:
            self._fail(Fault(FaultKind.DEADLINE, reason=phase, sent=True))


def _not_sent() -> Fault:
    return Fault(FaultKind.UPSTREAM_UNAVAILABLE, reason="upstream_connection_lost")
