"""Whatever arrives, only the named errors come out. SHADOWCAT_FUZZ_EXAMPLES=100000 runs it for long."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import json_strict, jsonrpc
from shadowcat.wire.headers import HeaderValueError, decode_value, encode_value, end_to_end, matches
from shadowcat.wire.lines import LineDecoder, OversizedLine
from shadowcat.wire.sse import SseDecoder, SseEvent, encode_event
from tests.wire import texts

Test = Callable[..., None]


def fuzz(test: Test) -> Test:
    examples = int(os.environ.get("SHADOWCAT_FUZZ_EXAMPLES", "200"))
    timed = pytest.mark.timeout(max(120, examples // 20))(test)
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])(timed)


_members = st.sampled_from(
    ['"jsonrpc":"2.0"', '"id":1', '"id":"1"', '"id":null', '"method":"m"', '"params":{}', '"result":1', '"error":{}',
     '"meth\\u006fd":"m"', '"Method":"m"', '"jsonrpc": "2.0"', '"id":1e2', '"params":{"a":1,"a":2}']
)  # fmt: skip
_messages = st.one_of(
    st.lists(_members, max_size=5).map(lambda members: f"{{{','.join(members)}}}"),
    texts.values.map(lambda value: f'{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{value}}}}}'),
    texts.values,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message, or a batch of them, with a few bytes changed, lost or put in."""
    raw = bytearray(
        draw(st.one_of(_messages, st.lists(_messages).map(lambda all: f"[{','.join(all)}]"))).encode()
    )
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(raw)))
        end = start + draw(st.integers(0, 2))
        raw[start:end] = draw(
            st.one_of(st.binary(max_size=2), st.sampled_from([b'"', b"\\", b"\\ud800", b"}", b","]))
        )
    return bytes(raw)


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """What was read, or the fault; anything else that is raised fails the test."""
    try:
        return read(*arguments)
    except Fault as fault:
        return fault


def is_json(raw: bytes) -> bool:
    """What the JSON rules of this project accept, by the standard library."""
    floats: list[float] = []

    def keep(number: str) -> float:
        floats.append(float(number))
        return floats[-1]

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        text = raw.decode()
        value = json.loads(text, parse_float=keep, parse_constant=refuse, object_pairs_hook=list)
        # A lone surrogate has no encoding.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return texts.depth(text) <= json_strict.MAX_DEPTH and all(math.isfinite(number) for number in floats)


@fuzz
@given(damaged() | st.binary(max_size=40))
def test_json(raw: bytes) -> None:
    message = outcome(jsonrpc.parse, raw)
    if isinstance(message, Fault):
        assert message.kind is (FaultKind.INVALID_REQUEST if is_json(raw) else FaultKind.PARSE)
        assert isinstance(jsonrpc.readable_id(raw), int | str | None)
        return
    assert is_json(raw)
    assert jsonrpc.readable_id(raw) == message.id
    value = json.loads(raw)
    assert value["jsonrpc"] == "2.0"
    assert (value.get("id"), value.get("method", "")) == (message.id, message.method)
    for look in (message.params, message.param_members, message.result, message.error, message.line):
        outcome(look)
    again = jsonrpc.parse(message.with_id(message.id).raw)
    assert (again.kind, again.id, again.method) == (message.kind, message.id, message.method)


@fuzz
@given(damaged() | st.binary(max_size=40))
def test_bodies(raw: bytes) -> None:
    found = outcome(functools.partial(jsonrpc.parse_body, max_batch=3), raw)
    if isinstance(found, Fault):
        assert found.kind is (FaultKind.INVALID_REQUEST if is_json(raw) else FaultKind.PARSE)
        return
    assert is_json(raw)
    if isinstance(found, list):
        assert 1 <= len(found) <= 3
        assert len(found) == len(json.loads(raw))


@fuzz
@given(damaged() | st.binary(max_size=40))
def test_members_and_values(raw: bytes) -> None:
    looks: list[Callable[[bytes], Any]] = [json_strict.members, json_strict.pairs, json_strict.loads]
    for look in looks:
        with contextlib.suppress(json_strict.JsonError):
            look(raw)


_event_bytes = st.lists(
    st.one_of(
        st.binary(max_size=4),
        st.sampled_from(
            [b"data:", b"id:", b"event:", b"retry:", b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\0"]
        ),
        st.integers(0, 60).map(lambda size: b"9" * size),
    ),
    max_size=12,
).map(b"".join)


@fuzz
@given(st.lists(_event_bytes, max_size=8))
def test_events(pieces: list[bytes]) -> None:
    decoder = SseDecoder(max_event_bytes=100)
    for piece in pieces:
        events = outcome(decoder.feed, piece)
        if isinstance(events, Fault):
            assert events.reason == "answer_too_large"
            assert sum(map(len, pieces)) > 100
            return
        for event in events:
            data, name, id, retry = event.data or b"", event.event.replace(b"\0", b"?"), event.id, event.retry
            assert len(data) + len(id or b"") <= 100
            again = encode_event(data, event=name, id=id, retry=retry)
            assert SseDecoder().feed(again) == [SseEvent(data, name, id, retry)]
        assert decoder.held_bytes <= 101


@fuzz
@given(st.lists(_event_bytes, max_size=8))
def test_lines(pieces: list[bytes]) -> None:
    decoder = LineDecoder(max_line_bytes=100)
    for piece in pieces:
        for line in decoder.feed(piece):
            if isinstance(line, OversizedLine):
                assert line.size > 100 == len(line.start)
            else:
                assert b"\n" not in line
                assert 0 < len(line) <= 100
        assert decoder.held_bytes <= 100
    decoder.close()


_values = st.one_of(
    st.binary(max_size=20),
    st.binary(max_size=9).map(lambda inner: b"=?base64?" + inner + b"?="),
    st.text("SGk=/+ 0", max_size=8).map(lambda inner: f"=?base64?{inner}?=".encode()),
    st.from_regex(rb"-?[0-9]{1,3}(\.[0-9]{0,3})?", fullmatch=True),
)


@fuzz
@given(_values, st.text(max_size=5) | st.integers() | st.booleans())
def test_header_values(header: bytes, value: str | int | bool) -> None:
    try:
        same = matches(header, value)
        text = decode_value(header)
    except HeaderValueError:
        return
    assert matches(encode_value(value), value)
    assert decode_value(encode_value(text)) == text
    if isinstance(value, str):
        assert same is (text == value)


_names = st.sampled_from([b"Connection", b"connection", b"TE", b"X-A", b"x-b", b"Content-Type"]) | st.binary(
    max_size=4
)


@fuzz
@given(st.lists(st.tuples(_names, st.lists(_names, max_size=3).map(b",".join))))
def test_header_lists(headers: list[tuple[bytes, bytes]]) -> None:
    left = end_to_end(headers)
    assert all(header in headers for header in left)
    assert not {b"connection", b"te"} & {name.lower() for name, _ in left}
    assert end_to_end(left) == left
