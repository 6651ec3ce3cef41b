"""A thread that hands what exchanges report to the writing process, in batches.

The batches are bytes already, so the thread only waits for the pipe. A thread that looked for secrets and made lines
itself would hold Python's lock meanwhile, and took four tenths of a call's CPU time.
"""

from __future__ import annotations

import logging
import threading
import time

import msgspec

from shadowcat.clock import Clock
from shadowcat.plugins.recording.entry import Batch, Progress, Setup, count_in
from shadowcat.plugins.recording.gathered import Gathered
from shadowcat.plugins.recording.helper import Helper, HelperLost

log = logging.getLogger("shadowcat.record")

_GATHER_S = 0.05
"""How long messages gather before they are handed over: a write each would cost more than all else."""
_CLOSE_S = 5.0
_RESTART_S = 1.0
_MAX_RESTART_S = 60.0


class Feed:
    def __init__(self, setup: Setup, clock: Clock) -> None:
        self._setup = setup
        self._directory = setup.options.directory
        self._clock = clock
        self._helper: Helper | None = None
        self._is_without = False
        """The process that writes has ended, and there is no other one yet."""
        self._restart_at_s = 0.0
        self._restart_s = _RESTART_S
        self._wake = threading.Event()
        self.gathered = Gathered(setup.options.queue_bytes, self._wake.set)
        """What the exchanges write; the thread writes the rest."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._progress = Progress()
        self._lost = 0
        """What was to be handed to a process that had ended."""
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
            log.error("the recording in %s is incomplete: writing the rest takes too long", self._directory)
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
        return self.gathered.left_out + self._lost

    @property
    def held_bytes(self) -> int:
        return self.gathered.held_bytes + self._progress.held_bytes

    # The thread.

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            is_last = self._closing.wait(_GATHER_S)
            for entries in self.gathered.take():
                self._hand_over(entries)
                self._tell_of_overflow()
            self._tell_of_overflow()
            if is_last:
                break
        self._hand_over(b"", is_last=True)
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.end()

    def _hand_over(self, entries: bytes | bytearray, *, is_last: bool = False) -> None:
        count = count_in(entries)
        helper = self._helper or self._started_again()
        try:
            if helper is None:
                self._lost += count
                return
            offset_s = self._clock.wall() - self._clock.monotonic()
            self._progress = helper.hand(Batch(count, offset_s, self.left_out, is_last), entries)
            for level, text in self._progress.notes:
                log.log(level, "%s", text)
        except HelperLost as error:
            self._lose(error, count)
        except Exception:
            self._lost += count
            log.exception("%d messages cannot be recorded", count)

    def _lose(self, error: HelperLost, messages: int) -> None:
        self._helper, self._is_without = None, True
        self._lost += messages
        self._progress.held_bytes = 0
        if self._closing.is_set():
            return  # nobody needs it any more, and whoever killed it has said so
        self._restart_at_s = time.monotonic() + self._restart_s
        log.error(
            "the process that writes the recording has ended (%s); traffic goes on without it, and it is "
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
        log.warning("recording goes on: %d messages are missing from the tape", self._lost)
        return self._helper

    def _tell_of_overflow(self) -> None:
        lost = self.gathered.left_out - self._overflow_told
        if lost and not self._is_behind:
            self._is_behind = True
            log.warning("the recording falls behind: messages are left out")
        elif self._is_behind and not self.gathered.held_bytes:
            self._is_behind = False
            self._overflow_told += lost
            log.warning("the recording has caught up: %d messages are missing from the tape", lost)
