"""stdio framing: one message per line, bounded, linear however a line is cut."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OversizedLine:
    """Stands where a line was too long to keep; its bytes are gone, the lines around it are not."""

    size: int
    start: bytes


class LineDecoder:
    """Feed it bytes, get whole lines without their ends; blank lines are left out."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._dropping = False

    @property
    def held_bytes(self) -> int:
        return 0 if self._dropping else self._held_bytes

    def feed(self, data: bytes) -> list[bytes | OversizedLine]:
        *lines, tail = data.split(b"\n")
        whole: list[bytes | OversizedLine] = []
        for line in lines:
            self._hold(line)
            ended = self._end_line()
            if ended:
                whole.append(ended)
        self._hold(tail)
        return whole

    def close(self) -> bytes | OversizedLine | None:
        """What stood after the last newline when the stream ended."""
        return self._end_line() or None

    def _hold(self, piece: bytes) -> None:
        if not piece:
            return
        self._held_bytes += len(piece)
        if self._dropping:
            return
        self._held.append(piece)
        if self._held_bytes > self._max:
            self._held = [self._held[0][:_SAMPLE]]
            self._dropping = True

    def _end_line(self) -> bytes | OversizedLine:
        held, size, dropped = self._held, self._held_bytes, self._dropping
        if held:
            self._held = []
            self._held_bytes = 0
            self._dropping = False
        if dropped:
            return OversizedLine(size, held[0])
        line = held[0] if len(held) == 1 else b"".join(held)
        return line.removesuffix(b"\r")


_SAMPLE = 200
