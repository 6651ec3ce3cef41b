"""A tap that writes tapes. The exchange makes a small entry and puts it into a queue; another process does all else."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.exchange import PASS, TO_SERVER, Context, Pass, Reject, Replace, Reply, Verdict
from shadowcat.errors import Fault
from shadowcat.plugins.recording.entry import ENTRY_BYTES, Entry, Progress, Setup
from shadowcat.plugins.recording.feed import Feed
from shadowcat.plugins.recording.links import Asked, Links
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import NOTIFICATION, REQUEST, RESULT, Message
from shadowcat.wire.mcp import Era
from shadowcat.wire.tape import FAILED, FORMAT, PASSED, REJECTED, REPLACED, REPLIED, VERSION, Head

log = logging.getLogger("shadowcat.record")

_LEGACY = Era.LEGACY
_GOES_ON = (PASSED, REPLACED)


@dataclass(frozen=True, slots=True)
class RecordStatistics:
    recorded: int
    dropped: int
    redacted: int
    held_bytes: int
    is_failing: bool
    """Nothing can be written at the moment."""


class Recorder:
    """Implements `core.ports.TapSink`. Started before the traffic, closed after it."""

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
        self._links = Links()
        self._numbers = itertools.count(1)

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

    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        # In one piece, because each function called and each object made for a message shows in what a call costs.
        at_s, kind, request = self._now(), message.kind, context.request
        linked, took_s, name = None, 0.0, "notification"
        if kind is REQUEST:
            name = "request"
        elif kind is not NOTIFICATION:
            name = "result" if kind is RESULT else "error"
            asked = None if request is None else self._links.ended(request)
            if asked is not None:
                linked, took_s, request = asked.seq, at_s - asked.at_s, None
        if request is not None:
            linked = self._links.seq_of(request)
        told, became = (PASSED, b"") if outcome is PASS else _told(outcome)
        seq, raw = next(self._numbers), message.raw
        size = ENTRY_BYTES + len(raw) + len(became)
        entry = Entry(
            seq,
            at_s,
            context.direction is TO_SERVER,
            context.era is _LEGACY,
            context.session_id,
            context.upstream,
            context.status,
            linked,
            took_s,
            name,
            message.method,
            raw,
            told,
            became,
        )
        if self._feed.put(entry, size) and kind is REQUEST and told in _GOES_ON:
            changed = outcome.message if isinstance(outcome, Replace) else None
            self._links.note(Asked(seq, at_s, message, changed, size))

    def failed(self, context: Context, fault: Fault) -> None:
        request = context.request
        asked = None if request is None else self._links.ended(request)
        if request is None or asked is None:
            return  # its end was seen already
        at_s, told = self._now(), jsonrpc.error(request.id, fault.error())
        entry = Entry(
            seq=next(self._numbers),
            at_s=at_s,
            to_server=False,
            legacy=context.era is _LEGACY,
            session_id=context.session_id,
            upstream=context.upstream,
            status=context.status,
            request=asked.seq,
            took_s=at_s - asked.at_s,
            kind="error",
            method="",
            raw=told.raw,
            outcome=FAILED,
        )
        self._feed.put(entry, entry.size)


def _told(outcome: Verdict) -> tuple[str, bytes]:
    match outcome:
        case Pass():
            return PASSED, b""
        case Replace(message=changed):
            return REPLACED, changed.raw
        case Reply(message=answer):
            return REPLIED, answer.raw
        case Reject(fault=fault):
            return REJECTED, msgspec.json.encode(fault.error())
