"""One client connection: requests answered in order, each by a task of its own or by a callback.

The states of the reading side are the reader's; here a request is either running, waiting behind another one, or
the last of the connection. What a refused client still sends is thrown away for a moment before the socket closes,
because closing on unread bytes would reset the connection and take the answer with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import replace
from typing import Any, cast

from shadowcat.http import framing
from shadowcat.http.check import Refusal, SpokeHttp2, SpokeTls
from shadowcat.http.flow import WriteGate, has_arrived
from shadowcat.http.later import Later
from shadowcat.http.message import Peer, Request, Response
from shadowcat.http.reader import RequestReader
from shadowcat.http.serving import Serving
from shadowcat.http.turn import Sender

log = logging.getLogger("shadowcat.http")

_JOIN_BELOW = 64 * 1024
_PARTING_S = 1.0
"""While draining, how long after its last answer a client that was told of no end has for what it is sending: whoever
uses its connection often is told with the answer, and whoever was silent for so long looks first whether the connection
still stands."""


class Connection(asyncio.Protocol):
    __slots__ = (
        "_close_by",
        "_closing",
        "_gate",
        "_is_late",
        "_is_parting",
        "_keep_alive",
        "_later",
        "_loop",
        "_lost",
        "_peer",
        "_queue",
        "_reader",
        "_running",
        "_sender",
        "_serving",
        "_silent_since",
        "_spoke_at",
        "_streamed",
        "_streaming",
        "_transport",
        "task",
    )

    def __init__(self, serving: Serving, *, is_late: bool) -> None:
        """`is_late` as in `Peer`."""
        self._serving = serving
        self._is_late = is_late
        self._loop = asyncio.get_running_loop()
        self._gate = WriteGate(self._loop)
        self._reader = RequestReader(
            serving.limits,
            self._take,
            self._send_continue,
            bodies=serving.bodies,
            forward=serving.forwarding is not None,
        )
        self._queue: deque[tuple[Request | Refusal, bool]] = deque()
        self._running: Request | None = None
        self._keep_alive = False
        """After what runs."""
        self._later: Later | None = None
        self.task: asyncio.Task[None] | None = None
        self._streaming = False
        self._streamed: Response | None = None
        self._spoke_at = 0.0
        self._closing = False
        self._close_by = 0.0
        self._lost = False
        self._is_parting = False
        self._silent_since = self._loop.time()
        """While nothing runs: since when the client owes a head, a body, or nothing."""

    # The transport's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # What the system does not take at once is not added to: a stream comes in pieces that keep it busy by
        # themselves. Over TLS 0 would close the gate for good.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._sender = Sender(self._transport, self._serving.turn, self._loop)
        self._peer = Peer(
            _address(transport.get_extra_info("peername")),
            transport.get_extra_info("peercert"),
            is_late=self._is_late,
        )
        serving = self._serving
        if serving.closed or len(serving.connections) >= serving.limits.connections:
            self._refuse(Refusal(503, "too many connections"))
        serving.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        reader = self._reader
        was_in_head, was_in_body = reader.in_head, reader.in_body
        reader.feed(data)
        if self._running is not None:
            return
        if (reader.in_body and not was_in_body) or (reader.in_head and not (was_in_head or was_in_body)):
            self._silent_since = self._loop.time()

    def eof_received(self) -> bool:
        # A half-closed client is a gone one: nothing tells it from a client that closed, and most have.
        return False

    def pause_writing(self) -> None:
        self._gate.close(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._closing = True
        self._reader.end()
        # It knows us: in a circle both would stay, and keep what lies around them from being given back.
        del self._reader
        self._drop_queued()
        self._gate.open()
        if self._running is None:
            self._serving.forget(self)
        elif self._streaming:
            if self.task is not None:
                self.task.cancel()
        else:
            self._running.client_gone()

    # What the reader hands over.

    def _send_continue(self) -> None:
        # Behind a running request the client would take it for that one's; it sends its body after a while anyway.
        if self._running is None:
            self._sender.write(framing.CONTINUE)

    def _take(self, item: Request | Refusal, keep_alive: bool) -> None:
        """Answers it, or has it wait behind the one that is being answered."""
        serving = self._serving
        if self._running is not None:
            self._queue.append((item, keep_alive))
            if len(self._queue) >= serving.limits.pipelined:
                self._transport.pause_reading()
            return
        if isinstance(item, Refusal):
            forwarding = serving.forwarding
            if isinstance(item, SpokeTls) and forwarding is not None and self._peer.tunnel is not None:
                item = SpokeTls(forwarding.refuse_tls(self._peer))
            self._refuse(item)
            return
        item.peer = self._peer
        self._running = item
        self._keep_alive = keep_alive
        serving.requests += 1
        try:
            outcome = serving.handler(item)
        except Exception as error:
            outcome = _raised(error)
        if isinstance(outcome, Later):
            self._later = outcome
            outcome.deliver = self._settle
        else:
            self._in_task(self._respond(item, outcome))

    def _in_task(self, work: Coroutine[Any, Any, None]) -> None:
        self.task = self._loop.create_task(work, name="http/exchange")

    # Answering.

    def _settle(self, outcome: Response | Awaitable[Response]) -> None:
        """What a `Later` brings. It is written in the frame of who brings it, unless something is to be waited for."""
        self._later = None
        request = self._running
        assert request is not None
        if not isinstance(outcome, Response):
            self._in_task(self._respond(request, outcome))
            return
        body = outcome.body
        assert isinstance(body, bytes)
        if outcome.status >= 400:
            self._serving.errors[outcome.status] += 1
        if not self._lost:
            self._keep_alive = self._write_whole(request, outcome, body, self._keep_alive)
        if self._gate.is_closed:
            self._in_task(self._wait_until_taken(request))
        else:
            self._finished(self._keep_alive)

    async def _wait_until_taken(self, request: Request) -> None:
        keep_alive = False
        try:
            await self._write_gate_open(request)
            keep_alive = self._keep_alive
        finally:
            self.task = None
            self._finished(keep_alive)

    async def _write_gate_open(self, request: Request) -> None:
        # The response has begun: there is nothing left to cancel.
        request.cancel_on_disconnect(_nothing)
        await self._gate.wait_open()

    async def _respond(self, request: Request, responding: Awaitable[Response]) -> None:
        keep_alive = self._keep_alive
        try:
            response = await responding
            if response.status >= 400:
                self._serving.errors[response.status] += 1
            body = response.body
            if isinstance(body, bytes):
                if request.method == "CONNECT":
                    keep_alive = not self._lost and self._write_tunnel(request, response, body)
                elif not self._lost:
                    keep_alive = self._write_whole(request, response, body, keep_alive)
                    if self._gate.is_closed:
                        await self._write_gate_open(request)
            else:
                keep_alive = await self._write_stream(request, response, body, keep_alive)
        except asyncio.CancelledError:
            keep_alive = False
            if not self._lost:
                # A handler that ended its own task answered nothing; the client must not wait for it.
                self._transport.abort()
        except Exception:
            log.exception("the handler of %s %s failed", request.method, request.path)
            keep_alive = False
            if not self._lost:
                if self._streaming:
                    # The head is out: only a broken connection still says that the body is not whole.
                    self._transport.abort()
                else:
                    self._refuse(Refusal(500, "internal error"))
        finally:
            self.task = None
            self._streaming = False
            self._streamed = None
            self._finished(keep_alive)

    def _finished(self, keep_alive: bool) -> None:
        serving = self._serving
        if self._running is not None:
            serving.bodies.held -= len(self._running.body)
            self._running = None
        if self._lost:
            serving.forget(self)
            return
        if not keep_alive:
            self._close()
            return
        queue = self._queue
        if queue:
            if len(queue) == serving.limits.pipelined:
                self._transport.resume_reading()
            self._take(*queue.popleft())
        else:
            self._silent_since = self._loop.time()

    def _write_whole(self, request: Request, response: Response, body: bytes, keep_alive: bool) -> bool:
        date = self._serving.date
        keep_alive = keep_alive and not self._serving.draining
        if response.status in framing.WITHOUT_BODY:
            self._sender.write(framing.head(response, date, keep_alive, b""))
            return keep_alive
        length = b"content-length: %d\r\n" % len(body)
        if request.method == "HEAD":
            self._sender.write(framing.head(response, date, keep_alive, length))
        elif len(body) < _JOIN_BELOW:
            self._sender.write(framing.head(response, date, keep_alive, length, body))
        else:
            self._sender.write_two(framing.head(response, date, keep_alive, length), body)
        return keep_alive

    def _write_tunnel(self, request: Request, response: Response, body: bytes) -> bool:
        """Whether there is one now; where there is none, what the client sent for it is not read."""
        if not 200 <= response.status < 300:
            return self._write_whole(request, response, body, keep_alive=False)
        # RFC 9110 9.3.6: nothing here says how long a body is.
        self._sender.write(framing.head(response, self._serving.date, True, b""))
        self._peer = replace(self._peer, tunnel=request.target)
        return True

    async def _write_stream(
        self, request: Request, response: Response, body: AsyncIterator[bytes], keep_alive: bool
    ) -> bool:
        sender = self._sender
        gate = self._gate
        # HTTP/1.0 knows no chunks: the end of the body is the end of the connection.
        has_body = response.status not in framing.WITHOUT_BODY
        chunked = request.chunked_responses and has_body
        keep_alive = keep_alive and request.chunked_responses and not self._serving.draining
        try:
            if self._lost:
                return False
            head = framing.head(response, self._serving.date, keep_alive, framing.CHUNKED if chunked else b"")
            self._streaming = True
            # It leaves with the first piece, or alone at the end of the turn.
            sender.write(head)
            if request.method == "HEAD" or not has_body:
                return keep_alive
            self._spoke_at = self._loop.time()
            self._streamed = response if response.idle_chunk else None
            async for chunk in body:
                if self._lost:  # and the body went on although it was cancelled
                    return False
                if chunk:
                    self._spoke_at = self._loop.time()
                    sender.write_now(framing.chunk(chunk) if chunked else chunk)
                    if gate.is_closed:
                        # The transport holds it, and a client that does not read is waited for long.
                        del chunk
                        await gate.wait_open()
            if chunked and not self._lost:
                sender.write_now(framing.LAST_CHUNK)
            return keep_alive
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    # Ending.

    def _refuse(self, refusal: Refusal) -> None:
        self._serving.refused += 1
        self._serving.errors[refusal.status] += 1
        if isinstance(refusal, SpokeHttp2):
            self._sender.write(framing.http2_refusal(refusal.why.encode()))
        else:
            told = self._serving.tell(refusal)
            body = told.body
            assert isinstance(body, bytes)
            length = b"content-length: %d\r\n" % len(body)
            self._sender.write(framing.head(told, self._serving.date, False, length, body))
        self._close()

    def _close(self, *, lingers: bool = True) -> None:
        """Sends what is written, and reads on for a moment so that no reset overtakes it."""
        if self._closing:
            return
        self._closing = True
        self._drop_queued()
        self._sender.flush()
        limits = self._serving.limits
        if lingers and self._transport.can_write_eof() and not self._transport.is_closing():
            # From here on the gate is closed while anything is unsent, and only then; see sweep.
            self._transport.set_write_buffer_limits(0)
            self._close_by = self._loop.time() + limits.linger_s
            self._transport.resume_reading()
            try:
                self._transport.write_eof()
            except OSError:
                # asyncio's own loop does it at once; the system may know of a client that is gone before we hear of it.
                self._transport.abort()
        else:
            # TLS lingers by itself, for the other end's goodbye, and does not show what it has yet to send.
            self._close_by = self._loop.time() + limits.stall_s
            self._transport.close()

    def _drop_queued(self) -> None:
        for item, _ in self._queue:
            if isinstance(item, Request):
                self._serving.bodies.give_back(len(item.body))
        self._queue.clear()

    def drain(self) -> None:
        """Soon ends one on which nothing is asked any more; what is asked is answered first, and told that it is last.

        Closed at once, it would be reset under a request that is on its way, of which nobody could say what became.
        """
        self._is_parting = True

    def abort(self) -> None:
        self._closing = True
        # What runs may end before the loss of the connection is told: the next one would be begun for nobody.
        self._drop_queued()
        self._sender.flush()
        self._transport.abort()

    def end(self) -> None:
        """With what runs on it, but for a task, which its owner joins."""
        self.abort()
        later, self._later = self._later, None
        if later is not None:
            if later.cancel is not None:
                later.cancel()
            self._finished(False)

    def sweep(self, now: float) -> None:
        limits = self._serving.limits
        sending = self._gate.is_closed
        if self._lost:
            return
        if sending and self._gate.has_stalled(self._transport.get_write_buffer_size(), now, limits.stall_s):
            self._serving.slow_closed += 1
            self.abort()
        elif self._closing:
            if now < self._close_by:
                return
            if sending:
                self._close_by = now + limits.linger_s
            else:
                self.abort()
        elif self._running is not None:
            self._fill_silence(now)
        elif now < self._silent_since + self._patience_s:
            return
        elif self._reader.is_idle:
            # A timer may be called before the sockets are looked at, and a busy loop is late for both.
            if not has_arrived(self._transport):
                # Who was silent for so long has read its last answer, and some do not look before they ask again.
                self._close(lingers=not self._serving.draining)
        else:
            self._reader.end()
            self._refuse(Refusal(408, "the request did not arrive in time"))

    @property
    def _patience_s(self) -> float:
        """How long what the client owes may be in coming; where it owes nothing, how long it may be idle."""
        reader, limits = self._reader, self._serving.limits
        if reader.in_body:
            return limits.body_wait_s
        if reader.in_head:
            return limits.head_wait_s
        idle_s = limits.idle_s if reader.delivered else limits.head_wait_s
        return min(idle_s, _PARTING_S) if self._is_parting else idle_s

    def _fill_silence(self, now: float) -> None:
        response = self._streamed
        if response is None or self._gate.is_closed or now - self._spoke_at < response.idle_s:
            return
        self._spoke_at = now
        chunk = response.idle_chunk
        chunked = self._running is not None and self._running.chunked_responses
        self._sender.write_now(framing.chunk(chunk) if chunked else chunk)


def _nothing() -> None:
    pass


async def _raised(error: Exception) -> Response:
    try:
        raise error
    finally:
        # It holds this frame: in a circle both would stay.
        del error


def _address(peername: tuple[str, int] | str | None) -> str:
    return peername[0] if isinstance(peername, tuple) else ""
