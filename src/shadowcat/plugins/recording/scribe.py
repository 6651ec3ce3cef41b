"""The writing process: looks through what it is handed for secrets, makes lines, and appends them.

It is a process, and not a thread of the proxy, because all of that would be done under the lock that the proxy's calls
need. It ends with its input: when the proxy is gone, however that came, what it was handed is on the tape.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

import msgspec

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.redact import Redactor
from shadowcat.plugins.recording.entry import Batch, Entry, Progress, Ready, Setup, framed, read_frame
from shadowcat.plugins.recording.frames import Framer
from shadowcat.plugins.recording.parts import Parts
from shadowcat.plugins.recording.ring import Ring
from shadowcat.wire.tape import Sidecar

log = logging.getLogger("shadowcat.record")

_SLICE_MESSAGES = 128
_SLICE_BYTES = 128 * 1024
_RETRY_S = 1.0


class Scribe:
    def __init__(self, setup: Setup, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._directory = setup.options.directory
        self._parts = Parts(setup.options, setup.head, self._clock)
        self._framer = Framer(Redactor(setup.options.redact_keys), setup.started_s, setup.key)
        self._ring = Ring(setup.options) if setup.options.ring_s else None
        before = setup.before
        self.progress = Progress(before.recorded, before.redacted, before.unwritten)
        self._failing_since = 0
        """What was unwritten before it began to fail."""
        self._retry_at_s = 0.0

    def prepare(self) -> None:
        """Raises `OSError` where nothing can be written."""
        self._parts.prepare()

    def take(self, batch: Batch, entries: Sequence[Entry]) -> Progress:
        ring = self._ring
        if ring is not None:
            entries = [held for entry in entries for held in ring.take(entry)]
        for part in _slices(entries):
            self._write(part, batch.wall_offset_s)
        if batch.is_last:
            self._end(batch.left_out)
        self.progress.held_bytes = 0 if ring is None else ring.held_bytes
        return self.progress

    def _end(self, left_out: int) -> None:
        if self.progress.recorded or self.progress.unwritten or left_out:
            self._parts.close(lambda sidecar: self._finish(sidecar, left_out))
        else:
            self._parts.remove()

    def _write(self, entries: Sequence[Entry], wall_offset_s: float) -> None:
        progress, now_s = self.progress, self._clock.monotonic()
        if progress.is_failing and now_s < self._retry_at_s:
            progress.unwritten += len(entries)
            return
        try:
            lines = self._framer.lines(entries, wall_offset_s)
            self._parts.append(lines.data, lines.frames)
        except OSError as error:
            self._fail(error, now_s, len(entries))
            return
        except Exception:
            progress.unwritten += len(entries)
            log.exception("%d messages cannot be recorded", len(entries))
            return
        progress.recorded += lines.frames
        progress.redacted += lines.redacted
        if progress.is_failing:
            progress.is_failing = False
            lost = progress.unwritten - self._failing_since
            log.warning("recording goes on: %d messages are missing from the tape", lost)

    def _fail(self, error: OSError, now_s: float, messages: int) -> None:
        progress = self.progress
        if not progress.is_failing:
            progress.is_failing = True
            self._failing_since = progress.unwritten
            why = error.strerror or error
            log.error("cannot record to %s: %s; traffic goes on unrecorded", self._directory, why)
        progress.unwritten += messages
        self._retry_at_s = now_s + _RETRY_S

    def _finish(self, sidecar: Sidecar, left_out: int) -> None:
        progress = self.progress
        sidecar.ended = round(self._clock.wall(), 3)
        sidecar.messages = progress.recorded
        sidecar.dropped = left_out + progress.unwritten
        sidecar.redacted = progress.redacted


def _slices(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    """What is looked through and written at a time."""
    found: list[Sequence[Entry]] = []
    begin = size = 0
    for at, entry in enumerate(entries):
        if at - begin >= _SLICE_MESSAGES or size >= _SLICE_BYTES:
            found.append(entries[begin:at])
            begin, size = at, 0
        size += entry.size
    return [*found, entries[begin:]] if entries else []


class _Notes(logging.Handler):
    """What is to be logged is the proxy's to log: it has the log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._notes: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        why = "" if error is None else f": {type(error).__name__}: {error}"
        self._notes.append((record.levelno, record.getMessage() + why))

    def take(self) -> list[tuple[int, str]]:
        notes, self._notes = self._notes, []
        return notes


def serve(read: Callable[[int], bytes | None], write: Callable[[bytearray], object]) -> None:
    """Writes what comes, until nothing does."""
    notes = _Notes()
    log.addHandler(notes)
    log.setLevel(logging.INFO)
    first = read_frame(read)
    if first is None:
        return
    scribe = Scribe(msgspec.msgpack.decode(first, type=Setup))
    try:
        scribe.prepare()
    except OSError as error:
        write(framed(Ready(error.errno or 0, error.strerror or str(error), str(error.filename or ""))))
        return
    write(framed(Ready()))
    decode, decode_entries = (
        msgspec.msgpack.Decoder(Batch).decode,
        msgspec.msgpack.Decoder(list[Entry]).decode,
    )
    while (head := read_frame(read)) is not None and (entries := read_frame(read)) is not None:
        progress = scribe.take(decode(head), decode_entries(entries))
        progress.notes = notes.take()
        write(framed(progress))


def main() -> None:
    # Whoever stops the proxy may stop all that belongs to it: what the proxy says last is still to be written.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    out = sys.stdout.fileno()
    try:
        serve(sys.stdin.buffer.raw.read, lambda frame: _write_all(out, frame))  # type: ignore[attr-defined]
    except BrokenPipeError:
        # The proxy has gone: nobody is left to be told.
        return


def _write_all(fd: int, data: bytearray) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


if __name__ == "__main__":
    main()
