from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.session import (
    SESSION_ID,
    TRANSITIONS,
    Event,
    SessionRecord,
    State,
    after,
    covers,
    promise_of,
)
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc

OPEN, RECOVERING, BROKEN, ENDED = State.OPEN, State.RECOVERING, State.BROKEN, State.ENDED

# Every state against every event; None is what cannot happen.
EXPECTED: dict[State, list[State | None]] = {
    #           LOST        RECOVERED  FAILED  SHRANK  ENDED
    OPEN: [RECOVERING, None, None, None, ENDED],
    RECOVERING: [None, OPEN, OPEN, BROKEN, ENDED],
    BROKEN: [None, None, None, None, ENDED],
    ENDED: [None, ENDED, ENDED, ENDED, ENDED],
}
EVENTS = [
    Event.UPSTREAM_LOST,
    Event.RECOVERED,
    Event.RECOVERY_FAILED,
    Event.PROMISE_SHRANK,
    Event.ENDED,
]


def test_the_table_knows_every_state_and_event() -> None:
    assert set(EVENTS) == set(Event)
    assert set(EXPECTED) == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State)


@pytest.mark.parametrize(
    ("state", "event", "expected"),
    [
        pytest.param(state, event, expected, id=f"{state.value}, {event.value}")
        for state, row in EXPECTED.items()
        for event, expected in zip(EVENTS, row, strict=True)
    ],
)
def test_transition(state: State, event: Event, expected: State | None) -> None:
    if expected is not None:
        assert after(state, event) is expected
    else:
        with pytest.raises(RuntimeError, match=event.value):
            after(state, event)


def test_nothing_leads_back_from_the_end() -> None:
    assert {to for (state, _), to in TRANSITIONS.items() if state is ENDED} == {ENDED}
    assert {to for (state, _), to in TRANSITIONS.items() if state is BROKEN} == {ENDED}


@pytest.mark.parametrize(
    ("promised", "offered", "expected"),
    [
        ({}, {}, True),
        ({}, {"tools": {}}, True),
        ({"tools": {}}, {}, False),
        ({"tools": {}}, {"tools": {}}, True),
        ({"tools": {}}, {"tools": None}, False),
        ({"tools": {}}, {"tools": {"listChanged": True}}, True),
        ({"tools": {"listChanged": True}}, {"tools": {}}, False),
        ({"tools": {"listChanged": True}}, {"tools": {"listChanged": False}}, False),
        ({"tools": {"listChanged": False}}, {"tools": {}}, True),
        ({"tools": {"listChanged": None}}, {"tools": {}}, True),
        ({"tools": {"listChanged": False}}, {"tools": {"listChanged": True}}, True),
        ({"logging": None}, {}, True),
        ({"x": {"y": {"z": [1, 2]}}}, {"x": {"y": {"z": [1, 2]}}}, True),
        ({"x": {"y": {"z": [1, 2]}}}, {"x": {"y": {"z": [1]}}}, False),
        ({"x": {"y": {}}}, {"x": {"y": True}}, False),
        ({"x": 1}, {"x": 2}, False),
        ({"x": "a"}, {"x": "a", "y": "b"}, True),
    ],
)
def test_covers(promised: Any, offered: Any, expected: bool) -> None:
    assert covers(promised, offered) is expected


capabilities = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.booleans() | st.none() | st.integers(0, 2),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@given(capabilities, capabilities)
def test_more_never_covers_less(promised: dict[str, Any], more: dict[str, Any]) -> None:
    assert covers(promised, promised)
    assert covers(promised, {**more, **promised})
    assert covers({}, more)


@given(capabilities, capabilities, capabilities)
def test_covers_is_transitive(a: Any, b: Any, c: Any) -> None:
    if covers(a, b) and covers(b, c):
        assert covers(a, c)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_promise(version: str) -> None:
    result = jsonrpc.result(1, {"protocolVersion": version, "capabilities": {"tools": {}}, "more": 1})
    promise = promise_of(result)
    assert (promise.protocol_version, promise.capabilities) == (version, {"tools": {}})


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({}, "upstream_initialize_result"),
        ({"protocolVersion": 7}, "upstream_initialize_result"),
        ({"protocolVersion": "2025-11-25", "capabilities": []}, "upstream_initialize_result"),
        ({"protocolVersion": "2026-07-28"}, "upstream_protocol_version"),
        ({"protocolVersion": "2025-11-26"}, "upstream_protocol_version"),
    ],
)
def test_no_promise(result: Any, reason: str) -> None:
    with pytest.raises(Fault) as caught:
        promise_of(jsonrpc.result(1, result))
    assert (caught.value.kind, caught.value.reason) == (FaultKind.UPSTREAM_INVALID, reason)
    assert caught.value.sent


def record(**changes: Any) -> SessionRecord:
    usual: dict[str, Any] = {
        "id": "s",
        "principal": "p",
        "route": "/mcp",
        "upstream": "a",
        "upstream_id": None,
        "version": "2025-11-25",
        "initialize_params": b"{}",
        "initialize_result": b'{"protocolVersion":"2025-11-25"}',
    }
    return SessionRecord(**(usual | changes))


def test_a_record_survives_encoding() -> None:
    whole = record(upstream_id="u", log_level="error", subscriptions=frozenset({"x:a"}), initialized=True)
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(whole), type=SessionRecord) == whole


def test_which_changes_were_promised() -> None:
    kinds = ("tools", "prompts", "resources")
    for promised in itertools.product([True, False, None], repeat=3):
        capabilities = {kind: {"listChanged": changes} for kind, changes in zip(kinds, promised, strict=True)}
        result = {"protocolVersion": "2025-11-25", "capabilities": {**capabilities, "logging": {}}}
        found = record(initialize_result=msgspec.json.encode(result)).list_changed_methods()
        assert found == [
            f"notifications/{kind}/list_changed"
            for kind, changes in zip(kinds, promised, strict=True)
            if changes
        ]
    odd = b'{"protocolVersion":"2025-11-25","capabilities":{"tools":true,"prompts":{"listChanged":1}}}'
    assert record(initialize_result=odd).list_changed_methods() == []


@pytest.mark.parametrize("id", ["x", "!" * 256, "~", "a-b_c.d"])
def test_a_session_id(id: str) -> None:
    assert SESSION_ID.fullmatch(id)


@pytest.mark.parametrize("id", ["", "a b", "x" * 257, "\x7f", "é", "a\n", "\x20"])
def test_no_session_id(id: str) -> None:
    assert not SESSION_ID.fullmatch(id)
