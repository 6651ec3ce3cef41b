"""A child's stderr: always read, logged or handed on, its last lines kept to explain a failure.

Servers print what they were configured with; secrets are cut out of what goes into the log.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from shadowcat.wire.lines import LineDecoder, OversizedLine
from shadowcat.wire.text import printable, without_frame

log = logging.getLogger("shadowcat.child")

MAX_LINE_BYTES = 4 * 1024
MAX_LINES_PER_S = 100
TAIL_LINES = 10


class Stderr:
    def __init__(
        self, tag: str, now: Callable[[], float], hand_on: Callable[[bytes], object] | None = None
    ) -> None:
        """`tag` says in the log whose lines they are; with `hand_on`, that gets the bytes and the log nothing."""
        self._tag = tag
        self._now = now
        self._hand_on = hand_on
        self._decoder = LineDecoder(MAX_LINE_BYTES)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._second = 0
        self._logged = 0
        self._left_out = 0

    @property
    def tail(self) -> str:
        """The last lines, in one line."""
        return _without_secrets(" | ".join(self._tail))

    def feed(self, data: bytes) -> None:
        if self._hand_on is not None:
            self._hand_on(data)
        for line in self._decoder.feed(data):
            self._take(line)

    def close(self) -> None:
        rest = self._decoder.close()
        if rest is not None:
            self._take(rest)
        self._say_what_was_left_out()

    def _take(self, line: bytes | OversizedLine) -> None:
        is_long = isinstance(line, OversizedLine)
        text = f"{printable(line.start)}… ({line.size} bytes)" if is_long else printable(line)
        if words := without_frame(text):
            self._tail.append(words)
        if self._hand_on is not None:
            return
        # A child that floods its stderr must not flood the log.
        second = int(self._now())
        if second != self._second:
            self._say_what_was_left_out()
            self._second, self._logged = second, 0
        if self._logged < MAX_LINES_PER_S:
            self._logged += 1
            log.info("%s: %s", self._tag, _without_secrets(text))
        else:
            self._left_out += 1

    def _say_what_was_left_out(self) -> None:
        if self._left_out:
            log.warning("%s: %d more lines on stderr are left out", self._tag, self._left_out)
            self._left_out = 0


def _without_secrets(text: str) -> str:
    # Here, because a command in an editor's configuration usually has nothing that needs it.
    from shadowcat.core.redact import Redactor

    return Redactor().text(text)
