"""Stored streams: a log, at most one reader, and the place where two lifetimes meet.

The writer is whoever follows the upstream; it goes on when the client is gone. The reader is one client connection;
a newer one takes over, because a half-open connection can look alive for minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shadowcat.core.exchange import StreamEvent
from shadowcat.core.stream import Budget, EventId, StreamLog
from shadowcat.wire.jsonrpc import Message, RequestId

MAX_PIECE_BYTES = 256 * 1024
"""What a reader is given at a time: one that resumes far back must not cost its whole log once more."""


class Stream:
    """One stored stream of a session."""

    __slots__ = (
        "_is_current",
        "_make_room",
        "_now",
        "_prefix",
        "_reader",
        "_room",
        "_wakeup",
        "id",
        "log",
        "primed",
        "request_id",
        "unread_since",
    )

    def __init__(
        self,
        epoch: str,
        id: int,
        budget: Budget,
        now: Callable[[], float],
        *,
        primed: bool,
        is_current: Callable[[RequestId], bool],
        make_room: Callable[[], object],
        request_id: RequestId | None = None,
    ) -> None:
        """`make_room` lets go of what others hold, before this stream has to."""
        self.id = id
        self.request_id = request_id
        """The client's request that this stream answers, if it is one."""
        self.log = StreamLog(budget)
        self.unread_since: float | None = now()
        self._now = now
        self.primed = primed
        """Whether its readers start with a priming event: a client resumes from it if nothing else came."""
        self._prefix = EventId(epoch, id, 0).encode()[:-1]
        self._is_current = is_current
        self._make_room = make_room
        self._reader: Reader | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # For the writer.

    def append(self, message: Message) -> None:
        if self.log.closed:
            # Its session ended meanwhile: nobody reads it any more, and nobody would give the room back.
            return
        if self.log.is_short_of_room:
            self._make_room()
        self.log.append(one_line(message), message.id if message.is_request else None)
        if self._wakeup is not None:
            self._wake()

    async def wait_for_room(self) -> None:
        """Returns once the log can take more without losing what no client was given."""
        while self.log.must_wait and not self.log.closed:
            # The calls of a batch share a stream: several may wait.
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def close(self) -> None:
        """The last event is in: readers end after it."""
        self.log.closed = True
        self._wake()
        self._wake_writer()

    # For readers.

    @property
    def is_read(self) -> bool:
        return self._reader is not None

    def read(self, after: int | None = None) -> Reader:
        """Attaches a reader, in place of the one there was. Raises `Gap` when `after` cannot be honoured."""
        if after is not None:
            self.log.hand_out_again(after)
        reader = Reader(self, replayed_to=self.log.last_seq if after is not None else 0)
        self._reader = reader
        self.unread_since = None
        self._wake()
        return reader

    def take(self, reader: Reader) -> list[StreamEvent] | None:
        """What the reader has not seen, piece by piece; None when it has seen everything there will be for it."""
        if self._reader is not reader:
            return None
        log = self.log
        while fresh := log.hand_out(MAX_PIECE_BYTES):
            self._wake_writer()
            prefix = self._prefix
            events = [
                StreamEvent(b"%b%d" % (prefix, seq), data)
                for seq, (data, request_id) in enumerate(fresh, log.handed_out + 1 - len(fresh))
                # An answered request is not asked again on a replay.
                if request_id is None or seq > reader.replayed_to or self._is_current(request_id)
            ]
            if events:
                return events
        return None if log.closed else []

    def priming(self) -> StreamEvent:
        return StreamEvent(b"%b%d" % (self._prefix, self.log.handed_out), None)

    async def wait(self) -> None:
        if self._wakeup is None:
            self._wakeup = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._wakeup)

    def detach(self, reader: Reader) -> None:
        if self._reader is reader:
            self.drop_reader()

    def drop_reader(self) -> None:
        self._reader = None
        self.unread_since = self._now()
        self._wake()

    def _wake(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    def _wake_writer(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)


class Reader:
    """One client connection's view of a stream; iterate it for batches of events."""

    __slots__ = ("_stream", "_unprimed", "replayed_to")

    def __init__(self, stream: Stream, replayed_to: int) -> None:
        self._stream = stream
        self._unprimed = stream.primed
        self.replayed_to = replayed_to

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> list[StreamEvent]:
        stream = self._stream
        if self._unprimed:
            self._unprimed = False
            priming = stream.priming()
            return [priming, *(stream.take(self) or ())]
        while True:
            events = stream.take(self)
            if events is None:
                stream.detach(self)
                raise StopAsyncIteration
            if events:
                return events
            await stream.wait()

    async def aclose(self) -> None:
        self._stream.detach(self)


def one_line(message: Message) -> bytes:
    raw = message.raw
    return message.line()[:-1] if b"\n" in raw or b"\r" in raw else raw
