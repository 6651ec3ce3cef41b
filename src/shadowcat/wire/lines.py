"""Framing on stdio: one message per line, bounded, in linear time however a line is cut."""

from __future__ import annotations

from dataclasses import dataclass

from shadowcat.errors import bytes_told

MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OversizedLine:
    """Stands where a line was too long to keep; its bytes are gone, the lines around it are not."""

    size: int
    start: bytes
    limit: int

    @property
    def told(self) -> str:
        return f"{self.size} bytes, larger than {bytes_told(self.limit)}"


class LineDecoder:
    """Feed it bytes, get whole lines without their ends; blank lines are left out."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._held = bytearray()
        self._size = 0

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes | OversizedLine]:
        *lines, tail = data.split(b"\n")
        whole: list[bytes | OversizedLine] = []
        for line in lines:
            if self._size or len(line) > self._max:
                self._hold(line)
                ended = self._end_line()
            else:
                ended = line.removesuffix(b"\r")
            if ended:
                whole.append(ended)
        self._hold(tail)
        return whole

    def close(self) -> bytes | OversizedLine | None:
        """What stood after the last newline when the stream ended."""
        return self._end_line() or None

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._max:
            self._held += piece
        else:
            # Too long to be a message: what names it in a log is kept, the same for any cut.
            self._held = (self._held[:_SAMPLE] + piece[:_SAMPLE])[: min(_SAMPLE, self._max)]

    def _end_line(self) -> bytes | OversizedLine:
        line, size = bytes(self._held), self._size
        self._held = bytearray()
        self._size = 0
        return OversizedLine(size, line, self._max) if size > self._max else line.removesuffix(b"\r")


_SAMPLE = 200
