"""From the queue that exchanges append to, to the process that writes: a thread that hands over what has gathered.

All that waits is handed over in one step, which is done in C and short: a thread that looked for secrets and made lines
itself would hold Python's lock while it does, and took four tenths of a call's CPU time.
"""

from __future__ import annotations

import logging
import threading
import time

import msgspec

from shadowcat.clock import Clock
from shadowcat.plugins.recording.entry import ENTRY_BYTES, Batch, Entry, Progress, Setup
from shadowcat.plugins.recording.helper import Helper, HelperLost

log = logging.getLogger("shadowcat.record")

_GATHER_S = 0.05
"""How long messages gather before they are handed over: a write each would cost more than all else."""
_BATCH_MESSAGES = 2_000
_BATCH_BYTES = 4 * 1024 * 1024
_CLOSE_S = 5.0
_RESTART_S = 1.0
_MAX_RESTART_S = 60.0


class Feed:
    def __init__(self, setup: Setup, clock: Clock) -> None:
        self._setup = setup
        self._directory = setup.options.directory
        self._max_messages = setup.options.queue_messages
        self._max_bytes = setup.options.queue_bytes
        self._clock = clock
        self._helper: Helper | None = None
        self._is_without = False
        """The process that writes has ended, and there is no other one yet."""
        self._restart_at_s = 0.0
        self._restart_s = _RESTART_S
        # What the exchanges write; the thread writes the rest.
        self._queue: list[Entry] = []
        self._taken_bytes = 0
        self._overflowed = 0
        self._is_awake = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._progress = Progress()
        self._lost = 0
        """What was to be handed to a process that had ended."""
        self._done_bytes = 0
        self._overflow_told = 0
        self._is_behind = False

    def start(self) -> None:
        """Raises `OSError` where nothing can be written."""
        self._helper = Helper(self._setup)
        self._thread.start()

    def close(self) -> None:
        """Hands over what waits, for as long as that may take."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log.error("the recording in %s is not written to its end: it takes too long", self._directory)
            helper = self._helper
            if helper is not None:
                helper.kill()
            self._thread.join(_CLOSE_S)

    @property
    def progress(self) -> Progress:
        return self._progress

    @property
    def is_failing(self) -> bool:
        return self._is_without or self._progress.is_failing

    @property
    def left_out(self) -> int:
        return self._overflowed + self._lost

    @property
    def held_bytes(self) -> int:
        return self._taken_bytes - self._done_bytes + self._progress.held_bytes

    # What an exchange waits for.

    def put(self, entry: Entry, size: int) -> bool:
        """`size` is that of the entry. False, and counted, where there is no room for it."""
        queue = self._queue
        waiting = self._taken_bytes - self._done_bytes
        if len(queue) >= self._max_messages or waiting >= self._max_bytes:
            self._overflowed += 1
            return False
        queue.append(entry)
        self._taken_bytes += size
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()
        return True

    # The thread.

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            # Whoever appends from here on wakes us again.
            self._closing.wait(_GATHER_S)
            self._is_awake = False
            # Not what comes meanwhile: it gathers, or there would be no end of small batches.
            left = len(self._queue)
            while left > 0:
                entries = self._taken()
                left -= len(entries)
                self._hand_over(entries)
                self._tell_of_overflow()
            if self._closing.is_set() and not self._queue:
                break
        self._hand_over([], is_last=True)
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.end()

    def _taken(self) -> list[Entry]:
        """Each step is one that the exchanges cannot get into."""
        entries = self._queue[:_BATCH_MESSAGES]
        if sum([len(entry.raw) for entry in entries]) > _BATCH_BYTES:
            entries = entries[: 1 + _BATCH_BYTES // max(len(entry.raw) for entry in entries)]
        del self._queue[: len(entries)]
        return entries

    def _hand_over(self, entries: list[Entry], *, is_last: bool = False) -> None:
        helper = self._helper or self._started_again()
        try:
            if helper is None:
                self._lost += len(entries)
                return
            offset_s = self._clock.wall() - self._clock.monotonic()
            self._progress = helper.hand(Batch(entries, offset_s, self.left_out, is_last))
            for level, text in self._progress.notes:
                log.log(level, "%s", text)
        except HelperLost as error:
            self._lose(error, len(entries))
        except Exception:
            self._lost += len(entries)
            log.exception("%d messages cannot be recorded", len(entries))
        finally:
            self._done_bytes += sum([ENTRY_BYTES + len(entry.raw) + len(entry.became) for entry in entries])

    def _lose(self, error: HelperLost, messages: int) -> None:
        self._helper, self._is_without = None, True
        self._lost += messages
        self._progress.held_bytes = 0
        if self._closing.is_set():
            return  # nobody needs it any more, and whoever killed it has said so
        self._restart_at_s = time.monotonic() + self._restart_s
        log.error(
            "the process that writes the recording has ended (%s); the traffic goes on without, and it is "
            "started again in %g s",
            error,
            self._restart_s,
        )
        self._restart_s = min(2 * self._restart_s, _MAX_RESTART_S)

    def _started_again(self) -> Helper | None:
        """None where it is not time yet, or it cannot be."""
        if time.monotonic() < self._restart_at_s or self._closing.is_set():
            return None
        try:
            self._helper = Helper(msgspec.structs.replace(self._setup, before=self._progress))
        except OSError:
            self._restart_at_s = time.monotonic() + self._restart_s
            return None
        self._is_without = False
        log.warning("recording goes on: %d messages are not on the tape", self._lost)
        return self._helper

    def _tell_of_overflow(self) -> None:
        lost = self._overflowed - self._overflow_told
        if lost and not self._is_behind:
            self._is_behind = True
            log.warning("the recording falls behind: messages are left out")
        elif self._is_behind and not self._queue:
            self._is_behind = False
            self._overflow_told += lost
            log.warning("the recording has caught up: %d messages are not on the tape", lost)
