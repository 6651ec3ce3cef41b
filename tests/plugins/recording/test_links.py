"""Which answer belongs to which request, and how much is held to know it."""

from __future__ import annotations

import pytest

from shadowcat.plugins.recording import links as links_module
from shadowcat.plugins.recording.links import Links
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message


def call(size: int = 0) -> Message:
    return jsonrpc.request(1, "tools/call", {"name": "t", "arguments": {"text": "x" * size}})


def known(*requests: Message) -> Links:
    links = Links()
    for seq, one in enumerate(requests, 1):
        links.asked[one] = seq
    return links


@pytest.mark.parametrize("by", ["what was asked", "what it went on as"])
def test_an_answer_is_linked_and_nothing_of_it_held(by: str) -> None:
    message, changed = call(), call()
    links = known(message)
    links.note_change(message, changed)
    assert links.held_bytes > 0
    answered = message if by == "what was asked" else changed
    assert links.ended(answered) == 1
    assert (links.ended(message), links.ended(changed), links.held_bytes) == (None, None, 0)
    assert not links.twins


def test_requests_are_told_apart_by_identity() -> None:
    one, same = call(), call()
    assert known(one).ended(same) is None


def test_so_many_are_known_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "MAX_UNANSWERED", 3)
    messages = [call() for _ in range(10)]
    links = known(*messages)
    links.keep_to_bounds(0)
    assert list(links.asked) == messages[-3:]


def test_what_is_held_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "MAX_UNANSWERED_BYTES", 100_000)
    messages = [call(30_000) for _ in range(10)]
    links, told_bytes = known(), 0
    for seq, one in enumerate(messages, 1):
        told_bytes += len(one.raw)
        links.asked[one] = seq
        links.keep_to_bounds(told_bytes)
        assert links.held_bytes <= 100_000
    assert list(links.asked.values()) == [10]
    links.ended(messages[-1])
    assert links.held_bytes == 0


def test_what_was_answered_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "MAX_UNANSWERED_BYTES", 100_000)
    long = call(10_000)
    links, told_bytes = known(long), len(long.raw)
    for _ in range(100):
        one = call(10_000)
        links.asked[one] = 2
        told_bytes += len(one.raw)
        links.keep_to_bounds(told_bytes)
        links.ended(one)
    assert long in links.asked
