"""Which answer belongs to which request, and how much is held to know it."""

from __future__ import annotations

import pytest

from shadowcat.plugins.recording import links
from shadowcat.plugins.recording.links import Asked, Links
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message


def call(size: int = 0) -> Message:
    return jsonrpc.request(1, "tools/call", {"name": "t", "arguments": {"text": "x" * size}})


def asked(seq: int, message: Message, changed: Message | None = None) -> Asked:
    return Asked(seq, float(seq), message, changed, len(message.raw))


@pytest.mark.parametrize("by", ["what was asked", "what it went on as"])
def test_an_answer_is_linked_and_nothing_of_it_held(by: str) -> None:
    known, message, changed = Links(), call(), call()
    known.note(asked(1, message, changed))
    assert known.held_bytes > 0
    answered = message if by == "what was asked" else changed
    assert known.seq_of(answered) == 1
    found = known.ended(answered)
    assert found is not None
    assert (found.seq, found.at_s, known.held_bytes) == (1, 1.0, 0)
    assert (known.seq_of(message), known.seq_of(changed), known.ended(message)) == (0, 0, None)


def test_one_that_is_told_of_twice_is_held_once() -> None:
    known, message = Links(), call()
    for seq in (1, 2):
        known.note(asked(seq, message))
    found = known.ended(message)
    assert found is not None
    assert (found.seq, known.held_bytes) == (2, 0)


@pytest.mark.parametrize("bound", ["MAX_UNANSWERED", "MAX_UNANSWERED_BYTES"])
def test_what_nobody_answers_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(links, bound, 3 if bound == "MAX_UNANSWERED" else 100_000)
    known, messages = Links(), [call(30_000) for _ in range(10)]
    for seq, one in enumerate(messages, 1):
        known.note(asked(seq, one))
        assert known.held_bytes <= 100_000
    assert [known.seq_of(one) for one in messages] == [0, 0, 0, 0, 0, 0, 0, 8, 9, 10]
    for one in messages:
        known.ended(one)
    assert known.held_bytes == 0
