"""A tap that writes tapes. An exchange only encodes a small entry; another process does the rest."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.exchange import PASS, TO_SERVER, Context, Pass, Reject, Replace, Reply, Verdict
from shadowcat.core.ports import SessionTap
from shadowcat.errors import Fault
from shadowcat.plugins.recording.entry import Progress, Setup
from shadowcat.plugins.recording.feed import Feed
from shadowcat.plugins.recording.links import Links
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.session import RecordedSession
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import ERROR, NOTIFICATION, REQUEST, RESULT, Message
from shadowcat.wire.mcp import Era
from shadowcat.wire.tape import FAILED, FORMAT, REJECTED, REPLACED, REPLIED, VERSION, Head

log = logging.getLogger("shadowcat.record")

_LEGACY = Era.LEGACY
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class RecordStatistics:
    recorded: int
    dropped: int
    redacted: int
    held_bytes: int
    is_failing: bool
    """Nothing can be written at the moment."""


class Recorder:
    """Implements `core.ports.TapOfSessions`. Started before the traffic, told from one thread, closed after it."""

    def __init__(
        self,
        options: RecordOptions,
        *,
        clients: str = "",
        upstreams: Mapping[str, str] | None = None,
        program: str = "",
        clock: Clock | None = None,
    ) -> None:
        """`clients` and `upstreams` are for the tape's head: how each is spoken to, http or stdio."""
        self._options = options
        self._clock = clock or SystemClock()
        self._now = self._clock.monotonic if clock is not None else time.monotonic
        wall = self._clock.wall()
        self.name = f"{datetime.fromtimestamp(wall, UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"
        head = Head(
            format=FORMAT,
            version=VERSION,
            started=round(wall, 3),
            recording=self.name,
            program=program,
            clients=clients,
            upstreams=dict(upstreams or {}),
            ring_s=options.ring_s,
            redacted_keys=options.redact_keys,
        )
        setup = Setup(options, head, self._clock.monotonic(), os.urandom(16), Progress())
        self._feed = Feed(setup, self._clock)
        self._gathered = self._feed.gathered
        self._links = Links()
        self._asked, self._twins = self._links.asked, self._links.twins

    def start(self) -> None:
        """Raises `OSError` where nothing can be written."""
        self._feed.start()
        log.info("recording to %s as %s", self._options.directory, self.name)

    def close(self) -> None:
        """Writes what waits, for as long as that may take."""
        self._feed.close()

    def statistics(self) -> RecordStatistics:
        feed, progress = self._feed, self._feed.progress
        return RecordStatistics(
            recorded=progress.recorded,
            dropped=feed.left_out + progress.unwritten,
            redacted=progress.redacted,
            held_bytes=feed.held_bytes + self._links.held_bytes,
            is_failing=feed.is_failing,
        )

    # What an exchange waits for.

    def of_session(self, asking: Context) -> SessionTap:
        return RecordedSession(asking, self._gathered, self._links, self._has_room, self._now)

    def saw(self, message: Message, context: Context, outcome: Verdict | None) -> None:
        """`outcome` is None for what the client is told because the server gave no answer."""
        # In one piece, because each function called and each object made for a message shows in what a call costs.
        gathered, request, kind = self._gathered, context.request, message.kind
        if len(gathered.buffer) > gathered.limit and not self._has_room(message, request):
            return
        gathered.seq = seq = gathered.seq + 1.0
        if request is None:
            linked = None
        elif kind is RESULT or kind is ERROR:
            linked = self._asked.pop(request, 0.0)
            if self._twins:
                self._links.forget_twin(request)
        else:
            linked = self._asked.get(request, 0.0)
        if kind is REQUEST:
            name, self._asked[message] = "request", seq
        elif kind is RESULT:
            name = "result"
        else:
            name = "notification" if kind is NOTIFICATION else "error"
        try:
            became = None if outcome is PASS else self._told(message, outcome)
            facts = _encode(
                (
                    context.direction is TO_SERVER,
                    context.era is _LEGACY,
                    context.session_id,
                    context.upstream,
                    context.status,
                    name,
                )
            )
            gathered.buffer += _encode(
                (seq, self._now(), facts, linked, message.method, message.raw, became, seq)
            )
        except Exception:
            gathered.leave_out()
            self._links.ended(message)
            raise

    def _has_room(self, message: Message, request: Message | None) -> bool:
        links = self._links
        links.keep_to_bounds(self._gathered.told_bytes)
        if self._gathered.has_room():
            return True
        if message.is_request:
            links.ended(message)
        elif request is not None and message.is_response:
            links.ended(request)
        return False

    def _told(self, message: Message, outcome: Verdict | None) -> tuple[str, bytes] | None:
        """What became of it, if it did not pass as it was; a request is found by what it became from now on."""
        links = self._links
        match outcome:
            case Pass():
                return None
            case None:
                return FAILED, b""
            case Replace(message=changed):
                if message.is_request:
                    links.note_change(message, changed)
                return REPLACED, changed.raw
            case Reply(message=answer):
                links.ended(message)
                return REPLIED, answer.raw
            case Reject(fault=fault):
                links.ended(message)
                return REJECTED, msgspec.json.encode(fault.error())

    def failed(self, context: Context, fault: Fault) -> None:
        request = context.request
        if request is None or request not in self._asked:
            return  # its end was seen already
        told = jsonrpc.error(request.id, fault.error())
        self.saw(told, context, None)
