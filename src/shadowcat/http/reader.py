"""Bytes of a connection to requests: llhttp's callbacks, with the bounds it does not have.

A request is handed over whole or not at all; what is refused is handed over as the `Refusal` it is, in its place
among the pipelined requests, and nothing after it is read.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from shadowcat.http.check import Refusal, check_head
from shadowcat.http.limits import ServerLimits
from shadowcat.http.message import Headers, Request

# What a chunked body may cost in framing: one-byte chunks cost five bytes each, extensions are never read.
_FRAMING_BYTES = 16 * 1024
_FRAMING_PER_BYTE = 8


class RequestReader:
    """Feed it bytes; it calls `deliver` with each request or the refusal that ends them."""

    def __init__(
        self,
        limits: ServerLimits,
        deliver: Callable[[Request | Refusal, bool], None],
        send_continue: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._deliver = deliver
        self._send_continue = send_continue
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: Refusal | None = None
        self.closed = False
        """Nothing more is read: a request was refused, or was the last of its connection."""
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers = Headers()
        self._head_bytes = 0
        self._fields = 0
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._fed = 0
        self.in_head = False
        self.in_body = False

    @property
    def is_idle(self) -> bool:
        return not (self.in_head or self.in_body)

    def feed(self, data: bytes) -> None:
        if self.closed:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_after_upgrade(data, upgrade)
        except httptools.HttpParserError as error:
            # Bytes after a request that closes its connection are nobody's: llhttp calls them an error.
            if not self.closed:
                self._refuse(self._refusal or Refusal(400, _explain(error)))
        else:
            self._bound_unfinished(len(data))

    def _go_on_after_upgrade(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """We switch to nothing: the request was answered as if it had not asked, and the next one follows."""
        rest = data[upgrade.args[0] :] if isinstance(upgrade.args[0], int) else b""
        self._parser = httptools.HttpRequestParser(self)
        if rest:
            self.feed(rest)

    def _bound_unfinished(self, fed: int) -> None:
        """llhttp buffers a head without limit and never shows chunk extensions: count what went in."""
        if self.in_head:
            self._fed += fed
            if self._fed > self._limits.head_bytes:
                long_target = len(self._target) > self._limits.target_bytes
                self._refuse(Refusal(414 if long_target else 431, "the head is too large"))
        elif self.in_body:
            self._fed += fed
            if self._fed > self._limits.head_bytes + _FRAMING_BYTES + _FRAMING_PER_BYTE * self._body_bytes:
                self._refuse(Refusal(400, "the body is mostly framing"))

    def _refuse(self, refusal: Refusal) -> None:
        self.closed = True
        self._reset()
        self._deliver(refusal, False)

    def _stop(self, refusal: Refusal) -> Refusal:
        # httptools wraps what a callback raises; the refusal itself is kept here.
        self._refusal = refusal
        return refusal

    # Called by httptools.

    def on_message_begin(self) -> None:
        self._reset()
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            raise self._stop(Refusal(414, f"the target may have {self._limits.target_bytes} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.head_bytes or self._fields > self._limits.head_fields:
            raise self._stop(Refusal(431, "too many or too large header fields"))
        if self.in_head:  # afterwards they are trailers: counted, never believed
            self._headers.add(name.lower(), value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        try:
            target = check_head(method, self._target, version, self._headers, self._limits.body_bytes)
        except Refusal as refusal:
            raise self._stop(refusal) from None
        self._request = Request(method, target, self._headers, chunked_responses=version == "1.1")
        self.in_head = False
        self.in_body = True
        self._fed = 0
        if b"expect" in self._headers:
            self._send_continue()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise self._stop(Refusal(413, f"the body may have {self._limits.body_bytes} bytes"))
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        chunks = self._chunks
        if chunks:
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
        self.in_body = False
        keep_alive = self._parser.should_keep_alive()
        if not keep_alive:
            self.closed = True
        self._deliver(request, keep_alive)


def _explain(error: httptools.HttpParserError) -> str:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return "no HTTP request"
    return str(error).splitlines()[0][:100] or "bad request"
