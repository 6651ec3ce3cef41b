"""Event streams: decode, and encode again under another id, as a relay with a log of its own does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.rounds import Spread, cpu_seconds, in_turn, print_table, ratio
from shadowcat.wire.sse import SseDecoder, SseEvent, encode_event

_ROUNDS = 9
_EVENTS = 2_000
_EVENT = (
    b"event: message\nid: 5f0c-%06d\n"
    b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"b7d3f0a2","progress":%d,'
    b'"total":2000,"message":"indexing documents"}}\n\n'
)


class LineByLine:
    """The decoder one writes first, as the specification reads: split off a line, look at its field."""

    def __init__(self) -> None:
        self._held = b""
        self._data: list[bytes] = []
        self._event = b"message"
        self._id: bytes | None = None

    def feed(self, data: bytes) -> Iterator[SseEvent]:
        lines = (self._held + data).replace(b"\r\n", b"\n").split(b"\n")
        self._held = lines.pop()
        for line in lines:
            if not line:
                if self._data:
                    yield SseEvent(b"\n".join(self._data), self._event, self._id)
                self._data, self._event, self._id = [], b"message", None
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
            elif name == b"event":
                self._event = value
            elif name == b"id":
                self._id = value


def run() -> None:
    stream = b"".join(_EVENT % (number, number) for number in range(_EVENTS))
    reads = {
        "reads of 16 KiB": [stream[start : start + 16384] for start in range(0, len(stream), 16384)],
        "one event a read": [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]],
    }
    rows: list[list[str]] = []
    for name, pieces in reads.items():
        found = in_turn(
            {
                "ours": lambda pieces=pieces: cpu_seconds(lambda: _relay(SseDecoder().feed, pieces)),
                "lines": lambda pieces=pieces: cpu_seconds(lambda: _relay(LineByLine().feed, pieces)),
            },
            _ROUNDS,
        )
        rates = {decoder: [_EVENTS / spent for spent in times] for decoder, times in found.items()}
        rows.append(
            [
                name,
                Spread.of(rates["ours"]).text(",.0f"),
                Spread.of(rates["lines"]).text(",.0f"),
                ratio(rates["ours"], rates["lines"]).text(),
            ]
        )
    print_table(["decode and encode", "events/s", "line by line", "RATIO"], rows)


def _relay(feed: Callable[[bytes], list[SseEvent] | Iterator[SseEvent]], pieces: list[bytes]) -> None:
    sent = 0
    for piece in pieces:
        for event in feed(piece):
            sent += 1
            encode_event(event.data or b"", id=b"s-%d" % sent)
    assert sent == _EVENTS
