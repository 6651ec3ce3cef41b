"""A tap that writes tapes. The exchange appends a reference to a queue; all else is done by a thread.

The thread shares Python's lock with the event loop, so it works in short slices and lets go of the lock between them:
an exchange waits for a slice at most.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.exchange import Context, Verdict
from shadowcat.core.redact import Redactor
from shadowcat.errors import Fault
from shadowcat.plugins.recording.entry import Entry, size_of
from shadowcat.plugins.recording.frames import Framer
from shadowcat.plugins.recording.links import Linked, Links
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.parts import Parts
from shadowcat.plugins.recording.ring import Ring
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.tape import FORMAT, VERSION, Head, Sidecar

log = logging.getLogger("shadowcat.record")

_GATHER_S = 0.05
"""How long messages gather before they are written: a write each would cost more than all else."""
_SLICE_MESSAGES = 128
_SLICE_BYTES = 128 * 1024
_RETRY_S = 1.0
_CLOSE_S = 5.0


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
        self._parts = Parts(options, head, self._clock)
        self._framer = Framer(Redactor(options.redact_keys), self._clock.monotonic())
        self._links = Links()
        self._ring = Ring(options) if options.ring_s else None
        # What the exchanges write; the thread writes the rest.
        self._queue: deque[Entry] = deque()
        self._numbers = itertools.count(1)
        self._taken_bytes = 0
        self._overflowed = 0
        self._is_awake = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._done_bytes = 0
        self._recorded = 0
        self._redacted = 0
        self._unwritten = 0
        self._overflow_told = 0
        self._is_behind = False
        self._failing_since = 0
        """What `_unwritten` was before it began to fail."""
        self._is_failing = False
        self._retry_at_s = 0.0

    def start(self) -> None:
        """Raises `OSError` where nothing can be written."""
        self._parts.prepare()
        self._thread.start()
        log.info("recording to %s as %s", self._options.directory, self.name)

    def close(self) -> None:
        """Writes what waits, for as long as that may take."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log.error(
                "the recording in %s is not written to its end: it takes too long", self._options.directory
            )

    def statistics(self) -> RecordStatistics:
        return RecordStatistics(
            recorded=self._recorded,
            dropped=self._dropped,
            redacted=self._redacted,
            held_bytes=self._taken_bytes
            - self._done_bytes
            + self._links.held_bytes
            + (self._ring.held_bytes if self._ring else 0),
            is_failing=self._is_failing,
        )

    @property
    def _dropped(self) -> int:
        return self._overflowed + self._unwritten

    # What an exchange waits for.

    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        self._take(context, message, outcome)

    def failed(self, context: Context, fault: Fault) -> None:
        self._take(context, None, fault)

    def _take(self, context: Context, message: Message | None, outcome: Verdict | Fault) -> None:
        seq = next(self._numbers)
        waiting = self._taken_bytes - self._done_bytes
        if len(self._queue) >= self._options.queue_messages or waiting >= self._options.queue_bytes:
            self._overflowed += 1
            return
        size = size_of(message, outcome)
        self._queue.append(Entry(seq, self._now(), context, message, outcome, size))
        self._taken_bytes += size
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()

    # The thread.

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            # Whoever appends from here on wakes us again.
            self._closing.wait(_GATHER_S)
            self._is_awake = False
            while self._queue:
                self._write_slice()
                self._tell_of_overflow()
                time.sleep(0)
            if self._closing.is_set() and not self._queue:
                break
        self._parts.close(self._finish)

    def _write_slice(self) -> None:
        entries: list[Entry] = []
        size = 0
        while self._queue and len(entries) < _SLICE_MESSAGES and size < _SLICE_BYTES:
            entries.append(self._queue.popleft())
            size += entries[-1].size
        linked: list[Linked] = []
        try:
            linked += (found for entry in entries if (found := self._links.link(entry)) is not None)
            self._write(
                linked if self._ring is None else [held for one in linked for held in self._ring.take(one)]
            )
        except Exception:
            self._unwritten += len(entries)
            log.exception("%d messages cannot be recorded", len(entries))
        self._done_bytes += size

    def _write(self, linked: Sequence[Linked]) -> None:
        if not linked:
            return
        now_s = self._clock.monotonic()
        if self._is_failing and now_s < self._retry_at_s:
            self._unwritten += len(linked)
            return
        lines = self._framer.lines(linked, self._clock.wall() - now_s)
        try:
            self._parts.append(lines.data, lines.frames)
        except OSError as error:
            self._fail(error, now_s, lines.frames)
            return
        self._recorded += lines.frames
        self._redacted += lines.redacted
        if self._is_failing:
            self._is_failing = False
            lost = self._unwritten - self._failing_since
            log.warning("recording goes on: %d messages are not on the tape", lost)

    def _fail(self, error: OSError, now_s: float, frames: int) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._failing_since = self._unwritten
            where = self._options.directory
            log.error("cannot record to %s: %s; the traffic goes on without", where, error.strerror or error)
        self._unwritten += frames
        self._retry_at_s = now_s + _RETRY_S

    def _tell_of_overflow(self) -> None:
        lost = self._overflowed - self._overflow_told
        if lost and not self._is_behind:
            self._is_behind = True
            log.warning("the recording falls behind: messages are left out")
        elif self._is_behind and not self._queue:
            self._is_behind = False
            self._overflow_told += lost
            log.warning("the recording has caught up: %d messages are not on the tape", lost)

    def _finish(self, sidecar: Sidecar) -> None:
        sidecar.ended = round(self._clock.wall(), 3)
        sidecar.messages = self._recorded
        sidecar.dropped = self._dropped
        sidecar.redacted = self._redacted
