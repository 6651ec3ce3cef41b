"""The streams of one session: numbered, found again by event id, and let go of in time."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from shadowcat.core.stream import EventId, Gap, LogLimits
from shadowcat.proxy.streams import Reader, Stream
from shadowcat.wire.jsonrpc import RequestId

STANDALONE = 0


class StreamBook:
    __slots__ = ("_epoch", "_is_current", "_last", "_limits", "_primed", "_streams")

    def __init__(self, limits: LogLimits, *, primed: bool, is_current: Callable[[RequestId], bool]) -> None:
        self._limits = limits
        self._primed = primed
        self._is_current = is_current
        self._epoch = secrets.token_urlsafe(9)
        self._last = STANDALONE
        self._streams: dict[int, Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def new(self) -> Stream:
        self._last += 1
        return self._add(self._last)

    @property
    def standalone(self) -> Stream:
        """The one that answers to no request; made when it is first needed."""
        return self._streams.get(STANDALONE) or self._add(STANDALONE)

    @property
    def has_readers(self) -> bool:
        return any(stream.is_read for stream in self._streams.values())

    def _add(self, id: int) -> Stream:
        stream = Stream(self._epoch, id, self._limits, primed=self._primed, is_current=self._is_current)
        self._streams[id] = stream
        return stream

    def resume(self, last_event_id: bytes) -> Reader | None:
        """The stream that id is of, from there on; None for an id of no session, another one, or another life.

        Raises `Gap` for an id that was ours and can no longer be honoured.
        """
        cursor = EventId.decode(last_event_id)
        if cursor is None or cursor.epoch != self._epoch or cursor.stream > self._last:
            return None
        stream = self._streams.get(cursor.stream)
        if stream is None:
            raise Gap
        return stream.read(after=cursor.seq)

    def close_all(self, now: float) -> None:
        for stream in self._streams.values():
            stream.close(now)

    def prune(self, now: float) -> None:
        """Lets go of finished streams: the old ones, and the oldest ones where together they hold too much."""
        limits = self._limits
        finished = [s for s in self._streams.values() if s.finished_at is not None and not s.is_read]
        events = sum(len(stream.log) for stream in self._streams.values())
        held = sum(stream.log.held_bytes for stream in self._streams.values())
        for stream in finished:
            assert stream.finished_at is not None
            too_much = events > limits.events or held > limits.bytes
            if not too_much and now - stream.finished_at < limits.age_s:
                continue
            events -= len(stream.log)
            held -= stream.log.held_bytes
            del self._streams[stream.id]
