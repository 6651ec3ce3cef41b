"""Entries that wait to be handed over, encoded at once and appended to a buffer.

Nothing is left of a message but its bytes, so nothing has to be held, counted or encoded a second time. Exchanges tell
in one thread and another one takes, without a lock: what both get into is done in one call into C, which holds
Python's. An entry is encoded before it is appended, so that one that cannot be is never there, not even half of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

_ENOUGH_BYTES = 256 * 1024
"""A buffer that has grown to this is put aside: it is what is handed over at a time."""
_NOTHING = -1
"""Below every length: as a limit it has everybody ask."""


class Gathered:
    def __init__(self, max_bytes: int, wake: Callable[[], object]) -> None:
        """`wake` is called when there is something to be taken again."""
        self.buffer = bytearray()
        """Where the next entry goes."""
        self.seq = 0.0
        """The number of the last entry."""
        self.limit = _NOTHING
        """Whoever finds the buffer longer than this asks whether there is room."""
        self.left_out = 0
        self._max_bytes = max_bytes
        self._enough = min(_ENOUGH_BYTES, max_bytes // 4)
        self._wake = wake
        self._aside: deque[tuple[bytearray, int]] = deque()
        self._aside_bytes = 0
        """All that were ever put aside."""
        # What the other thread writes.
        self._done_bytes = 0
        """Of those."""
        self._piece_bytes = 0
        """All that was ever taken out of a buffer that is not full."""
        self._in_hand_bytes = 0
        """Of that."""

    @property
    def told_bytes(self) -> int:
        """All that was ever told."""
        return self._aside_bytes + self._piece_bytes + len(self.buffer)

    @property
    def held_bytes(self) -> int:
        return self._aside_bytes - self._done_bytes + self._in_hand_bytes + len(self.buffer)

    def has_room(self) -> bool:
        """Whether one more may be told. If not it is counted and takes a number, and what comes next another buffer."""
        is_room = self.held_bytes < self._max_bytes
        if len(self.buffer) > self._enough or not is_room:
            self._put_aside()
        if not is_room:
            self.seq += 1.0
            self.left_out += 1
            self.limit = _NOTHING
            return False
        if self.limit == _NOTHING:
            self.limit = self._enough
            self._wake()
        return True

    def _put_aside(self) -> None:
        buffer = self.buffer
        size = len(buffer)
        if size:
            # Before there is another one: who finds that one finds this one here, or has taken it.
            self._aside_bytes += size
            self._aside.append((buffer, size))
        self.buffer = bytearray()

    def leave_out(self) -> None:
        """The entry that has the last number: it cannot be encoded."""
        self.left_out += 1
        self._put_aside()

    def take(self) -> Iterator[bytearray]:
        """All that is there by now, in pieces; each is taken for done with when the next is asked for.

        Full buffers that come meanwhile too, as they are older than what the last piece is made of. Not what comes
        after that: it gathers, or there would be no end of small pieces.
        """
        # Whoever tells something from here on wakes us again.
        self.limit = _NOTHING
        while True:
            yield from self._take_aside()
            buffer = self.buffer
            if not self._aside:
                break
        # It may be put aside meanwhile, and be empty when its turn comes.
        piece = buffer[:]
        del buffer[: len(piece)]
        self._in_hand_bytes = len(piece)
        self._piece_bytes += len(piece)
        if piece:
            yield piece
        self._in_hand_bytes = 0

    def _take_aside(self) -> Iterator[bytearray]:
        while self._aside:
            buffer, size = self._aside[0]
            if buffer:
                yield buffer
            # It may not have been replaced yet, and would be found there once more.
            buffer.clear()
            self._aside.popleft()
            self._done_bytes += size
