"""Which arguments a tool wants in headers, and whether they are there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shadowcat.core.annotations import ToolHeaders, repeated_in
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc

SCHEMA = {
    "properties": {
        "n": {"type": "integer", "x-mcp-header": "N"},
        "deep": {"properties": {"on": {"type": "boolean", "x-mcp-header": "On"}}},
    }
}


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        (SCHEMA, {b"mcp-param-n": ("n",), b"mcp-param-on": ("deep", "on")}),
        ({}, {}),
        ({"properties": {"n": {"type": "number", "x-mcp-header": "N"}}}, {}),
        ({"properties": {"n": {"items": {"type": "string", "x-mcp-header": "N"}}}}, {}),
        ({"properties": [{"x-mcp-header": 1}]}, {}),
        ({"properties": {"x-mcp-header": {"type": "string", "x-mcp-header": ["N"]}}}, {}),
    ],
)
def test_what_is_repeated(schema: Any, found: dict[bytes, tuple[str, ...]]) -> None:
    assert repeated_in(json.dumps(schema).encode()) == found


def known(schema: Any = SCHEMA) -> ToolHeaders:
    tools = ToolHeaders()
    page = {"tools": [{"name": "t", "inputSchema": schema}], "nextCursor": "more"}
    assert tools.learn(jsonrpc.result(1, page)) == "more"
    return tools


def call(arguments: Any, name: str = "t") -> jsonrpc.Message:
    return jsonrpc.request(1, "tools/call", {"name": name, "arguments": arguments})


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"n": 42}, {b"mcp-param-n": b"42.0"}),
        ({"n": None}, {}),
        ({"n": [1]}, {}),
        ({"deep": {"on": True}}, {b"mcp-param-on": b"true"}),
        (None, {b"mcp-param-other": b"x"}),
    ],
)
def test_headers_that_agree(arguments: Any, headers: dict[bytes, bytes]) -> None:
    known().check(call(arguments), headers)


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"n": 42}, {}),
        ({"n": 42}, {b"mcp-param-n": b"43"}),
        ({"n": 42}, {b"mcp-param-n": b"=?base64?x?="}),
        ({}, {b"mcp-param-n": b"42"}),
        ({"deep": {"on": True}}, {b"mcp-param-on": b"True"}),
    ],
)
def test_headers_that_do_not(arguments: Any, headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Fault) as caught:
        known().check(call(arguments), headers)
    assert caught.value.kind is FaultKind.HEADER_MISMATCH


def test_what_is_not_known_is_not_checked() -> None:
    tools = known()
    assert tools.knows(call({}))
    assert not tools.knows(call({}, "other"))
    tools.check(call({"n": 1}, "other"), {})
    assert tools.learn(jsonrpc.result(1, {"tools": 5})) is None
    assert not tools.knows(jsonrpc.request(1, "tools/call", {"name": 5}))
