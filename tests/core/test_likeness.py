"""When two messages are the same, and how it is told where they are not."""

from __future__ import annotations

from typing import Any

import pytest

from shadowcat.core.likeness import Likeness
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message


def asked(params: Any) -> Message:
    return jsonrpc.request(1, "tools/call", params)


def told(a: Any, b: Any, *ignore: str, strict: bool = False) -> list[tuple[str, str, str]]:
    likeness = Likeness(ignore, strict=strict)
    found = list(likeness.differences(jsonrpc.result(1, a), jsonrpc.result("x", b)))
    keys = [likeness.key(asked({"arguments": value})) for value in (a, b)]
    if not ignore:
        assert (keys[0] == keys[1]) == (not found)
    return [tuple(one) for one in found]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": 1}, {"x": 1}),
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        ({"x": 1}, {"x": 1.0}),
        ({"x": 1, "_meta": {"a": 1}}, {"x": 1, "_meta": {"b": 2}}),
        ({"x": "at 2026-01-01T10:00:00Z"}, {"x": "at 2027-02-02T11:11:11.5+02:00"}),
        ({"createdAt": 1_750_000_000}, {"createdAt": 1_760_000_000}),
        ({"timestamp": 1_750_000_000_123}, {"timestamp": 1_760_000_000_123}),
        ({"_meta": {"progressToken": 1}}, {"_meta": {"progressToken": "a"}}),
    ],
)
def test_what_is_the_same(a: Any, b: Any) -> None:
    assert told(a, b) == []


@pytest.mark.parametrize(
    ("a", "b", "pointer", "expected", "got"),
    [
        ({"x": 1}, {"x": 2}, "/result/x", "1", "2"),
        ({"x": 1}, {"x": "1"}, "/result/x", "1", '"1"'),
        ({"x": 1}, {"x": True}, "/result/x", "1", "true"),
        ({"x": 1}, {}, "/result/x", "1", "nothing"),
        ({}, {"x": None}, "/result/x", "nothing", "null"),
        ({"a/b": {"~": [1, 2]}}, {"a/b": {"~": [1, 3]}}, "/result/a~1b/~0/1", "2", "3"),
        ([1], [1, 2, 3], "/result/1", "nothing", "2 more, the first of them 2"),
        ({"x": 1.5}, {"x": {"y": 1}}, "/result/x", "1.5", '{"y":1}'),
        ({"count": 1_750_000_000}, {"count": 1_760_000_000}, "/result/count", "1750000000", "1760000000"),
    ],
)
def test_what_differs_is_named(a: Any, b: Any, pointer: str, expected: str, got: str) -> None:
    assert told(a, b) == [(pointer, expected, got)]


def test_strict() -> None:
    assert told({"_meta": {"a": 1}}, {"_meta": {"a": 2}}, strict=True)
    assert told({"x": "2026-01-01T10:00:00Z"}, {"x": "2027-01-01T10:00:00Z"}, strict=True)
    assert not told({"_meta": {"progressToken": 1}}, {"_meta": {"progressToken": 2}}, strict=True)


@pytest.mark.parametrize(
    "pointer", ["/result/list/*/now", "/result/list/0/now", "/*/list/0/now", "/result/list"]
)
def test_what_is_ignored(pointer: str) -> None:
    assert told({"list": [{"now": 1, "x": 1}]}, {"list": [{"now": 2, "x": 1}]}, pointer) == []


def test_only_what_is_ignored_is() -> None:
    found = told({"list": [{"now": 1, "x": 1}]}, {"list": [{"now": 2, "x": 2}]}, "/result/list/*/now")
    assert [pointer for pointer, _, _ in found] == ["/result/list/0/x"]


def test_a_part_of_a_request_that_is_ignored() -> None:
    likeness = Likeness(["/params/arguments/now"])
    assert likeness.key(asked({"arguments": {"now": 1}})) == likeness.key(asked({"arguments": {"now": 2}}))
    assert likeness.key(asked({"arguments": {"x": 1}})) != likeness.key(asked({"arguments": {"x": 2}}))


@pytest.mark.parametrize("pointer", ["", "/", "params/x", "$.x"])
def test_what_is_no_pointer(pointer: str) -> None:
    with pytest.raises(ValueError, match="is no JSON pointer"):
        Likeness([pointer])


def test_another_kind_of_answer() -> None:
    [found] = Likeness().differences(jsonrpc.result(1, {}), jsonrpc.error(1, {"code": -1, "message": "no"}))
    assert found == ("", "result", 'error {"code":-1,"message":"no"}')


def test_a_long_value_is_shortened() -> None:
    [(_, expected, _)] = told({"x": "a" * 1_000}, {"x": "b"})
    assert len(expected) == 120
