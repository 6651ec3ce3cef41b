"""Bytes of a connection to requests: llhttp's callbacks, with the bounds it does not have.

A request is handed over whole or not at all; what is refused is handed over as the `Refusal` it is, in its place
among the pipelined requests, and nothing after it is read.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from shadowcat.errors import without_frames
from shadowcat.http.bodies import Bodies
from shadowcat.http.check import Refusal, SpokeHttp2, SpokeTls, check_head
from shadowcat.http.limits import ServerLimits
from shadowcat.http.memo import HeadMemo
from shadowcat.http.message import HeaderList, Headers, Request, size_of

# What is fed to llhttp at a time: it does not say how much of it belonged to which request.
_SLICE_BYTES = 16 * 1024
# How much of a chunked body may go by without a byte of content. Nobody reads the extensions of chunks, and an
# unfinished trailer is kept by httptools without limit.
_FRAMING_BYTES = 16 * 1024
_TLS_HANDSHAKE = b"\x16"
_HTTP2_PREFACE = "Pause on PRI/Upgrade"
"""What llhttp calls it."""

Head = tuple[str, bytes, Headers]
"""Method, target and header fields."""


class RequestReader:
    """Feed it bytes; it calls `deliver` with each request or the refusal that ends them.

    It has a parser only while it reads a request: one takes 900 bytes, which every idle connection would hold and every
    one with a stream on it, and making it anew a fifteenth of the time that a head takes.
    """

    __slots__ = (
        "_bodies",
        "_body",
        "_body_missing",
        "_deliver",
        "_fed",
        "_fields",
        "_forward",
        "_head",
        "_limits",
        "_memo",
        "_parser",
        "_refusal",
        "_request",
        "_send_continue",
        "_taken",
        "_target",
        "closed",
        "delivered",
        "in_body",
        "in_head",
    )

    def __init__(
        self,
        limits: ServerLimits,
        deliver: Callable[[Request | Refusal, bool], None],
        send_continue: Callable[[], None],
        *,
        bodies: Bodies | None = None,
        forward: bool = False,
    ) -> None:
        """`bodies` counts what is read of them; that of a request that was delivered is its taker's to give back.

        `forward`: CONNECT is taken, and targets that name a host. Inside a tunnel neither is."""
        self._forward = forward
        self._limits = limits
        self._deliver = deliver
        self._send_continue = send_continue
        self._parser: httptools.HttpRequestParser | None = None
        self._memo: HeadMemo[Head] = HeadMemo()
        self._head: Head | None = None
        """The last head, if it may come again."""
        self._refusal: Refusal | None = None
        self.delivered = 0
        """Requests; those whose head was the last one's are not counted."""
        self._bodies = bodies or Bodies(limits.bodies_bytes)
        self._taken = 0
        """Of the body that is being read."""
        self.closed = False
        """Nothing more is read: a request was refused, or was the last of its connection."""
        self._reset()

    def _reset(self) -> None:
        self._request: Request | None = None
        """The one that is being read, once its head is complete."""
        self._target = b""
        self._fields: HeaderList = []
        self._body: bytes | bytearray = b""
        self._body_missing = False
        self._fed = -_SLICE_BYTES
        self.in_head = False
        self.in_body = False

    @property
    def is_idle(self) -> bool:
        return not (self.in_head or self.in_body)

    def feed(self, data: bytes) -> None:
        if not (self.in_head or self.in_body or self.closed) and self._recall(data):
            return
        if len(data) > _SLICE_BYTES:
            view = memoryview(data)
            for start in range(0, len(data), _SLICE_BYTES):
                self._feed(view[start : start + _SLICE_BYTES])
        elif self.in_head or self.in_body or self.closed:
            self._feed(data)
        else:
            before = self.delivered
            self._feed(data)
            if self.delivered == before + 1 and not self.in_head and self._head is not None:
                self._learn(self._head, data)
        if self._parser is not None and self.is_idle:
            self._parser = None

    def _recall(self, data: bytes) -> bool:
        """Delivers a request whose head is the last one's; the parser stays between two requests."""
        recalled = self._memo.recall(data)
        if recalled is None:
            return False
        (method, target, headers), digits, body = recalled
        if digits:
            headers = headers.with_length(digits)
            self._memo.keep((method, target, headers))
        size = len(body)
        if size > self._limits.body_bytes or not self._bodies.try_take(size, size):
            return False
        self._deliver(Request(method, target, headers, body), True)
        return True

    def _learn(self, head: Head, data: bytes) -> None:
        headers = head[2]
        parser = self._parser
        plain = not self.closed and parser is not None and not parser.should_upgrade()
        if plain and headers.get(b"expect") is None and headers.get(b"transfer-encoding") is None:
            headers.notes = {}
            self._memo.learn(data, head)

    def _feed(self, data: bytes | memoryview) -> None:
        while data and not self.closed:
            parser = self._parser
            if parser is None:
                parser = self._parser = httptools.HttpRequestParser(self)
            try:
                parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._go_on_after_upgrade(keep_alive=parser.should_keep_alive())
            except httptools.HttpParserError as error:
                # Bytes after a request that closes its connection are nobody's: llhttp calls them an error.
                if not self.closed:
                    refusal = self._refusal or _refusal_of(error, data)
                    # Raised in a callback, it holds us and what was read: in a circle all would stay.
                    self._refuse(without_frames(refusal))
            else:
                if self.in_head or self.in_body:
                    self._bound_unfinished(len(data))
                return

    def _go_on_after_upgrade(self, *, keep_alive: bool) -> None:
        """We switch to nothing: the request is answered as if it had not asked, and the next one follows.

        llhttp takes what comes after such a head for the other protocol, the request's own body included (Java's
        client asks for h2c with every POST). So the body is read by a parser that was told its framing only.
        """
        parser = self._parser = httptools.HttpRequestParser(self)
        if not self._body_missing:
            return
        request, head = self._request, self._head
        assert request is not None
        length = request.headers.get(b"content-length")
        self._fields = []
        parser.feed_data(
            b"POST / HTTP/1.1\r\nhost: -\r\n"
            + (b"transfer-encoding: chunked" if length is None else b"content-length: " + length)
            + (b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n")
        )
        self._request, self._head = request, head

    def _bound_unfinished(self, fed: int) -> None:
        """httptools keeps an unfinished field without limit and never shows chunk extensions: count what went in.

        The count starts one slice below zero, because the first slice may hold the end of something else.
        """
        self._fed += fed
        if self.in_head and self._fed > self._limits.head_bytes:
            self._refuse(Refusal(431, "the head is too large"))
        elif self.in_body and self._fed > _FRAMING_BYTES:
            self._refuse(Refusal(400, "the body is mostly framing"))

    def _refuse(self, refusal: Refusal) -> None:
        self.end()
        self._deliver(refusal, False)

    def end(self) -> None:
        """Nothing more is read, and what was read of a request that will never be whole is let go of."""
        self.closed = True
        self._parser = None
        self._bodies.give_back(self._taken)
        self._taken = 0
        self._refusal = None
        self._reset()

    def _stop(self, refusal: Refusal) -> Refusal:
        # httptools wraps what a callback raises; the refusal itself is kept here.
        self._refusal = refusal
        return refusal

    # Called by httptools.

    def on_message_begin(self) -> None:
        if self.closed:
            raise self._stop(Refusal(400, "the request before was the last of its connection"))
        self.in_head = True
        self._fed = -_SLICE_BYTES

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            raise self._stop(
                Refusal(414, f"the target is too long: {self._limits.target_bytes} bytes at most")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._fields
        fields.append((name, value))
        if len(fields) > self._limits.head_fields:
            raise self._stop(Refusal(431, "too many header fields"))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        limits = self._limits
        fields = self._fields  # what is added to them from here on are trailers: counted, never believed
        # What one slice holds needs no counting, unless the limit is a small one.
        if self._fed + 2 * _SLICE_BYTES > limits.head_bytes < size_of(fields):
            raise self._stop(Refusal(431, "too large header fields"))
        headers = Headers(fields)
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        try:
            target = check_head(method, self._target, version, headers, limits.body_bytes, self._forward)
        except Refusal as refusal:
            raise self._stop(refusal) from None
        self._target = b""
        self._request = Request(method, target, headers, b"", version == "1.1")
        self._head = (method, target, headers) if version == "1.1" else None
        self.in_head = False
        self.in_body = True
        self._fed = -_SLICE_BYTES
        self._body_missing = parser.should_upgrade() and (
            b"transfer-encoding" in headers or int(headers.get(b"content-length") or b"0") > 0
        )
        if headers.get(b"expect") is not None and version == "1.1":
            self._send_continue()

    def on_body(self, body: bytes) -> None:
        self._fed = -_SLICE_BYTES
        if not self._body:
            self._body = body
        else:
            # Not a list of pieces: two-byte chunks would make it thirty times as large as the body.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        if len(self._body) > self._limits.body_bytes:
            raise self._stop(Refusal(413, f"the body is too large: {self._limits.body_bytes} bytes at most"))
        try:
            self._bodies.take(len(body), len(self._body))
        except Refusal as refusal:
            raise self._stop(refusal) from None
        self._taken += len(body)

    def on_message_complete(self) -> None:
        if self._body_missing:
            return
        # Not kept here: whoever is silent afterwards would have us hold the body of the last request.
        request, self._request = self._request, None
        parser = self._parser
        assert request is not None
        assert parser is not None
        if self._body:
            request.body = bytes(self._body)
            self._body = b""
            self._taken = 0
        self._fields = []
        self.in_body = False
        # An HTTP/1.0 client that asks for keep-alive would wait for the header that grants it.
        keep_alive = request.chunked_responses and parser.should_keep_alive()
        if self._forward and request.method == "CONNECT":
            # Whatever it says of the connection: what follows is inside the tunnel, or nobody's.
            self._forward = False
            self._memo = HeadMemo()
        elif not keep_alive:
            self.closed = True
        self.delivered += 1
        self._deliver(request, keep_alive)


def _refusal_of(error: httptools.HttpParserError, data: bytes | memoryview) -> Refusal:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return SpokeTls() if data[:1] == _TLS_HANDSHAKE else Refusal(400, "no HTTP request")
    told = str(error).splitlines()[0][:100]
    return SpokeHttp2() if told == _HTTP2_PREFACE else Refusal(400, told or "bad request")
