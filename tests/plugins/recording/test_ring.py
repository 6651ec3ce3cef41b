"""The ring: nothing is written until something goes wrong, and then what led to it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowcat.clock import ManualClock
from shadowcat.plugins.recording import ring as ring_module
from shadowcat.plugins.recording.entry import Entry
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.ring import Ring
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.tape import FAILED
from tests.plugins.recording.kit import answer, call, entry, frames_in, recording

CALL = call(1)
GOOD = answer(CALL, ok=True)
BAD = jsonrpc.error(1, {"code": -32000, "message": "no"})
FAILED_TOOL = answer(CALL, content=[], isError=True)


def ring(**options: Any) -> Ring:
    return Ring(RecordOptions(directory="", **{"ring_s": 10.0, **options}))


def seen(seq: int, at_s: float, message: Message | None = GOOD, request: int | None = None) -> Entry:
    became = None if message is not None else (FAILED, b"")
    to_server = message is CALL
    return entry(seq, message or BAD, at_s=at_s, to_server=to_server, became=became, request=request)


@pytest.mark.parametrize("bad", [BAD, FAILED_TOOL, None], ids=["error", "tool", "fault"])
def test_what_goes_wrong_brings_what_led_to_it(bad: Message | None) -> None:
    found = ring()
    assert not found.take(seen(1, 0.0, CALL))
    assert not found.take(seen(2, 1.0))
    assert [one.seq for one in found.take(seen(3, 2.0, bad))] == [1, 2, 3]
    assert found.held_bytes == 0
    assert not found.take(seen(4, 3.0))


def test_what_is_too_old_is_let_go_of() -> None:
    found = ring()
    found.take(seen(1, 0.0))
    found.take(seen(2, 5.0))
    assert not found.take(seen(3, 12.0))
    assert [one.seq for one in found.take(seen(4, 13.0, BAD))] == [2, 3, 4]


def test_it_is_bounded_in_bytes() -> None:
    found = ring(ring_bytes=5_000)
    for number in range(100):
        found.take(seen(number, 0.0))
        assert found.held_bytes <= 5_000
    assert 1 < len(found.take(seen(100, 0.0, BAD))) < 20


def test_a_slow_call() -> None:
    found = ring(slow_call_s=2.0)
    for seq, at_s in ((1, 0.0), (2, 1.0)):
        assert not found.take(seen(seq, at_s, CALL))
    assert not found.take(seen(3, 1.9, request=1))
    assert len(found.take(seen(4, 3.1, request=2))) == 4


def test_a_slow_call_whose_request_the_ring_let_go_of() -> None:
    found = ring(slow_call_s=30.0)
    assert not found.take(seen(1, 0.0, CALL))
    assert not found.take(seen(2, 15.0))
    assert [one.seq for one in found.take(seen(3, 31.0, request=1))] == [2, 3]


def test_what_nobody_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "MAX_UNANSWERED", 2)
    found = ring(slow_call_s=1.0)
    for seq in (1, 2, 3):
        found.take(seen(seq, 0.0, CALL))
    assert not found.take(seen(4, 5.0, request=1))
    assert found.take(seen(5, 5.0, request=2))


def test_an_error_that_the_client_sent_is_none() -> None:
    found = ring()
    assert not found.take(entry(1, BAD, to_server=True))


def test_on_a_tape(tmp_path: Path) -> None:
    clock = ManualClock()
    with recording(tmp_path, clock, ring_s=10.0, slow_call_s=5.0) as traffic:
        traffic.exchange(1)
        clock.advance(20)
        request = traffic.ask(call(2))
        clock.advance(6)
        traffic.tell(answer(request), request)
        traffic.exchange(3)
    frames = frames_in(tmp_path)
    assert [(frame.seq, frame.request) for frame in frames] == [(3, None), (4, 3)]
