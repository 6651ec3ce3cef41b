"""What interceptors judge on a connection between one client and one server."""

from __future__ import annotations

from typing import Any

import pytest

from shadowcat.core.exchange import Direction, Reject
from shadowcat.core.rule_file import read_rules
from shadowcat.plugins.rules import Rules
from shadowcat.proxy.interception import Interception
from shadowcat.proxy.pipeline import Pipeline
from tests.protocol.test_taps import Tap

DOWN = Direction.TO_CLIENT
HIDE = """
[[rule]]
name = "hide what it finds"
method = "tools/call"
direction = "to_client"
replace = { content = [] }
"""
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}'


def answer(id: Any) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":{"content":["found"]}}' % id


@pytest.mark.parametrize("id", [b'"1"', b"2"])
async def test_an_answer_to_nothing_gets_around_no_rule(id: bytes) -> None:
    tap = Tap()
    between = Interception(Pipeline([Rules(read_rules(HIDE))], [tap]), "a", "s")
    between.take(CALL, is_up=True)
    assert between.take(answer(id), is_up=False) == []
    told = [(outcome, message.raw) for message, context, outcome in tap.seen if context.direction is DOWN]
    [(outcome, raw)] = told
    assert (type(outcome), raw) == (Reject, answer(id))
    [sent] = between.take(answer(b"1"), is_up=False)
    assert (sent.is_up, sent.message.result()) == (False, {"content": []})
    assert between.take(answer(b"1"), is_up=False) == []


async def test_an_id_that_is_in_flight_is_refused() -> None:
    between = Interception(Pipeline([Rules(read_rules(HIDE))]), "a", "s")
    between.take(CALL, is_up=True)
    [refused] = between.take(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', is_up=True)
    assert (refused.is_up, refused.message.id, refused.message.error()["code"]) == (False, 1, -32600)
    [sent] = between.take(answer(b"1"), is_up=False)
    assert sent.message.result() == {"content": []}
    asked = b'{"jsonrpc":"2.0","id":1,"method":"roots/list"}'
    assert [sent.is_up for sent in between.take(asked, is_up=False)] == [False]
    assert [sent.is_up for sent in between.take(asked, is_up=False)] == [True]


async def test_who_only_listens_keeps_nothing_back() -> None:
    between = Interception(Pipeline([], [Tap()]), "a", "s")
    [sent] = between.take(answer(b"7"), is_up=False)
    assert sent.message.raw == answer(b"7")


def counting(id: bytes, token: bytes) -> bytes:
    params = b'{"name":"t","_meta":{"progressToken":%b}}' % token
    return b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":%b}' % (id, params)


def progress(token: bytes) -> bytes:
    params = b'{"progressToken":%b,"progress":1}' % token
    return b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}' % params


@pytest.mark.parametrize(
    ("token", "of"), [(b"7", 1), (b'"7"', 2), (b'"of nobody"', None), (b"[]", None)], ids=str
)
async def test_progress_is_told_with_its_request(token: bytes, of: int | None) -> None:
    tap = Tap()
    between = Interception(Pipeline([], [tap]), "a", "s")
    for asked in (CALL.replace(b'"id":1', b'"id":0'), counting(b"1", b"7"), counting(b"2", b'"7"')):
        between.take(asked, is_up=True)
    between.take(progress(token), is_up=False)
    _, context, _ = tap.seen[-1]
    assert (context.request.id if context.request else None) == of


async def test_progress_of_what_was_answered_is_of_no_request() -> None:
    tap = Tap()
    between = Interception(Pipeline([], [tap]), "a", "s")
    between.take(counting(b"1", b"7"), is_up=True)
    between.take(answer(b"1"), is_up=False)
    between.take(progress(b"7"), is_up=False)
    _, context, _ = tap.seen[-1]
    assert context.request is None
