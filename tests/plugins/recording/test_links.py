"""Which answer belongs to which request, and how much is held to know it."""

from __future__ import annotations

import pytest

from shadowcat.core.exchange import PASS, Caller, Context, Direction
from shadowcat.plugins.recording import links
from shadowcat.plugins.recording.entry import Entry, size_of
from shadowcat.plugins.recording.links import Links
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era


def entry(seq: int, message: Message, request: Message | None = None) -> Entry:
    direction = Direction.TO_SERVER if request is None else Direction.TO_CLIENT
    context = Context(Era.LEGACY, direction, Caller(), "a", "s", request)
    return Entry(seq, float(seq), context, message, PASS, size_of(message, PASS))


def call(size: int = 0) -> Message:
    return jsonrpc.request(1, "tools/call", {"name": "t", "arguments": {"text": "x" * size}})


ANSWER = jsonrpc.result(1, {})


def test_an_answer_is_linked_and_nothing_of_it_held() -> None:
    known, asked = Links(), call()
    known.link(entry(1, asked))
    assert known.held_bytes > 0
    found = known.link(entry(5, ANSWER, asked))
    assert found is not None
    assert (found.request, found.took_s, known.held_bytes) == (1, 4.0, 0)


def test_one_that_is_told_of_twice_is_held_once() -> None:
    known, asked = Links(), call()
    for seq in (1, 2):
        known.link(entry(seq, asked))
    found = known.link(entry(3, ANSWER, asked))
    assert found is not None
    assert (found.request, known.held_bytes) == (2, 0)


def test_what_nobody_answers_is_bounded_also_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_UNANSWERED_BYTES", 100_000)
    known, asked = Links(), [call(30_000) for _ in range(10)]
    for seq, one in enumerate(asked, 1):
        known.link(entry(seq, one))
        assert known.held_bytes <= 100_000
    requests = [found and found.request for found in (known.link(entry(20, ANSWER, one)) for one in asked)]
    assert requests == [0, 0, 0, 0, 0, 0, 0, 8, 9, 10]
    assert known.held_bytes == 0
