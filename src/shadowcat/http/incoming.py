"""A response as it comes in: its head, and the body to be read, taken at once, left or given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from shadowcat.errors import Fault, answer_too_large
from shadowcat.http.message import Headers

_NO_HEADERS = Headers()


class Line(Protocol):
    """The connection it comes on."""

    loop: asyncio.AbstractEventLoop

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def lift_gap(self) -> None:
        """No time between two pieces is too long any more."""
        ...

    def hear_out(self) -> None:
        """Nobody reads the rest."""
        ...

    def abort(self) -> None: ...


class Prompt(Protocol):
    """A reader that need not be woken for everything."""

    def at_once(self, data: bytes) -> bool:
        """Takes what came, in the frame of the read. False wakes who waits."""
        ...


class ClientResponse(msgspec.Struct, eq=False):
    """A response whose head is here; the body comes as it is read.

    Iterate it for the pieces as they arrive, or `read` it whole; then or otherwise, `aclose` it.
    """

    _connection: Line
    _on_news: Callable[[ClientResponse], object] | None
    status: int = 0
    headers: Headers = _NO_HEADERS
    complete: bool = False
    fault: Fault | None = None
    """Why there is no head, or no more of the body."""
    _pieces: list[bytes] | None = None
    _size: int = 0
    _waiter: asyncio.Future[None] | None = None
    _reader: Prompt | None = None
    """Who waits, if it takes things at once."""
    _patience: asyncio.TimerHandle | None = None

    async def read(self, max_bytes: int) -> bytes:
        """The whole body. More than `max_bytes` is a fault of the server."""
        if self.complete and self._size <= max_bytes:
            return self._take()
        pieces: list[bytes] = []
        size = 0
        async for piece in self:
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                self.abort()
                raise answer_too_large(max_bytes)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self.has_come:
            await self.arrival()
        return self.take()

    @property
    def has_come(self) -> bool:
        """Whether there is something to be taken, be it the end."""
        return self._pieces is not None or self.complete or self.fault is not None

    def arrival(self, reader: Prompt | None = None) -> asyncio.Future[None]:
        """Done when there is, for the one who reads; unless `reader` has taken it by then."""
        self._reader = reader
        self._connection.resume_reading()
        self._waiter = self._connection.loop.create_future()
        return self._waiter

    def pause(self) -> None:
        """Nothing more is read until something is waited for."""
        if not self.complete and self.fault is None:
            self._connection.pause_reading()

    def take(self) -> bytes:
        """What has come. Raises what ended it, `StopAsyncIteration` if all is well, when that was all."""
        if self._pieces is None:
            raise StopAsyncIteration if self.fault is None else self.fault.anew()
        return self._take()

    def _take(self) -> bytes:
        pieces, self._pieces = self._pieces, None
        self._size = 0
        if pieces is None:
            return b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def so_far(self) -> bytes:
        """What of the body is here and was not taken; it stays to be read."""
        pieces = self._pieces
        if pieces is None:
            return b""
        if len(pieces) != 1:
            pieces[:] = [b"".join(pieces)]
        return pieces[0]

    def tell_again(self, on_more: Callable[[ClientResponse], object], within_s: float) -> None:
        """For who was called at the head, and does not read yet: calls once more of the body is here, or its end, or
        when the time is up."""
        self._on_news = on_more
        self._patience = self._connection.loop.call_later(within_s, self.announce)

    def abort(self) -> None:
        """Gives the rest up. The connection cannot be used again: the server would have to be heard out."""
        self._listen_no_more()
        if not self.complete and self.fault is None:
            self._connection.abort()

    def leave(self) -> None:
        """The rest is of no interest. If it ends soon its connection is used again."""
        self._listen_no_more()
        # Held on to, it could be so much that the end is not read.
        self._take()
        if not self.complete and self.fault is None:
            self._connection.hear_out()

    def _listen_no_more(self) -> None:
        self._on_news = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    async def aclose(self) -> None:
        self.abort()

    def forget_headers(self) -> None:
        """For who has looked at them, and will read for as long as a stream goes on."""
        self.headers = _NO_HEADERS

    def may_be_silent(self) -> None:
        """From here on no time between two pieces is too long."""
        if not self.complete and self.fault is None:
            self._connection.lift_gap()

    # For the connection.

    def feed(self, data: bytes) -> None:
        if self._pieces is None:
            self._pieces = [data]
        else:
            self._pieces.append(data)
        self._size += len(data)

    @property
    def held_bytes(self) -> int:
        """Of what has come and was not taken."""
        return self._size

    def finish(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.complete = fault is None
        if self._waiter is not None:
            self._wake()

    def announce(self) -> None:
        """Tells of a read whoever asked, once, or reads. Whatever runs for that may use the connection again."""
        on_news = self._on_news
        if on_news is not None:
            self._on_news = None
            if self._patience is not None:
                self._listen_no_more()
            on_news(self)
        elif self._waiter is not None and self._pieces is not None:
            reader = self._reader
            if reader is None or self._waiter.done() or not reader.at_once(self.take()):
                self._wake()

    def _wake(self) -> None:
        waiter, self._waiter, self._reader = self._waiter, None, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
