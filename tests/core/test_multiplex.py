"""Ids, tokens and subscription ids are changed and restored; every other byte stays."""

from __future__ import annotations

import pytest

from shadowcat.core import multiplex
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import RequestId
from shadowcat.wire.mcp import Meta

SUB = Meta.SUBSCRIPTION_ID


@pytest.mark.parametrize("token", [0, 7, "7", "", "é"])
def test_a_request_and_its_progress(token: RequestId) -> None:
    params = {"name": "t", "arguments": {"n": 1.0}, "_meta": {"a": "b", "progressToken": token}}
    outgoing, found = multiplex.renumbered(jsonrpc.request("x", "tools/call", params), 41)
    assert (found, type(found)) == (token, type(token))
    assert outgoing.id == 41
    assert outgoing.params() == {**params, "_meta": {"a": "b", "progressToken": 41}}
    progress = jsonrpc.notification("notifications/progress", {"progressToken": 41, "progress": 0.5})
    assert multiplex.token_of(progress) == 41
    restored = multiplex.with_token(progress, token)
    assert restored.params() == {"progressToken": token, "progress": 0.5}


def test_a_request_without_a_token_keeps_its_parameters_to_the_byte() -> None:
    raw = b'{"jsonrpc":"2.0","id":"a","method":"m","params":{"x": 1e2,"y":  "\\u00e9"}}'
    outgoing, token = multiplex.renumbered(jsonrpc.parse(raw), 3)
    assert token is None
    assert outgoing.raw_params == b'{"x": 1e2,"y":  "\\u00e9"}'


def test_a_cancellation() -> None:
    cancelled = jsonrpc.notification("notifications/cancelled", {"requestId": "a", "reason": "r"})
    assert multiplex.request_named_by(cancelled) == "a"
    assert multiplex.with_request_named(cancelled, 9).params() == {"requestId": 9, "reason": "r"}
    assert multiplex.request_named_by(jsonrpc.notification("notifications/cancelled")) is None


def test_subscriptions() -> None:
    news = jsonrpc.notification("notifications/tools/list_changed", {"_meta": {SUB: 5, "k": 1}})
    assert multiplex.subscription_of(news) == 5
    assert multiplex.with_subscription(news, "mine").params() == {"_meta": {SUB: "mine", "k": 1}}
    end = jsonrpc.result(5, {"resultType": "complete", "_meta": {SUB: 5}})
    assert multiplex.subscription_of(end) == 5
    assert multiplex.with_subscription(end, "5").result() == {"resultType": "complete", "_meta": {SUB: "5"}}


@pytest.mark.parametrize(
    "params", [{}, {"_meta": {}}, {"_meta": {SUB: None}}, {"_meta": {SUB: [1]}}, {"_meta": 1, "x": SUB}]
)
def test_what_names_no_subscription(params: dict[str, object]) -> None:
    assert multiplex.subscription_of(jsonrpc.notification("m", params)) is None
