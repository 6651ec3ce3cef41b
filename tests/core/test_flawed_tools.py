"""Which tools cannot be offered over HTTP, and that the others are left as they are."""

from __future__ import annotations

from typing import Any

import pytest

from shadowcat.core.flawed_tools import flaw_in, without_flawed
from shadowcat.wire import jsonrpc

N = {"type": "integer", "x-mcp-header": "N"}


def arguments(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        arguments(n=N),
        arguments(n=N, m={"type": "string", "x-mcp-header": "M"}),
        arguments(deep=arguments(deeper=arguments(n=N))),
        # An argument of that name, and values that look like one.
        {"properties": {"x-mcp-header": {"type": "string"}}},
        arguments(n={"type": "object", "default": {"x-mcp-header": ""}, "enum": [{"x-mcp-header": 5}]}),
        {"properties": [N], "required": ["x-mcp-header"]},
        True,
    ],
)
def test_what_can_be_offered(schema: Any) -> None:
    assert flaw_in(schema) is None


@pytest.mark.parametrize(
    ("schema", "flaw"),
    [
        (arguments(n={**N, "x-mcp-header": ""}), "names no header"),
        (arguments(n={**N, "x-mcp-header": "a b"}), "names no header"),
        (arguments(n={**N, "x-mcp-header": "a\r\nb: c"}), "names no header"),
        (arguments(n={**N, "x-mcp-header": "Ö"}), "names no header"),
        (arguments(n={**N, "x-mcp-header": 5}), "names no header"),
        (arguments(n={**N, "type": "number"}), "no string, integer or boolean"),
        (arguments(n={**N, "type": ["integer", "null"]}), "no string, integer or boolean"),
        (arguments(n={"x-mcp-header": "N"}), "no string, integer or boolean"),
        (arguments(n=N, m={**N, "x-mcp-header": "n"}), "stands twice"),
        (arguments(n=N, deep=arguments(n=N)), "stands twice"),
        ({**N}, "where a call has no argument"),
        (arguments(n={"type": "array", "items": N}), "where a call has no argument"),
        (arguments(n={"anyOf": [{"type": "null"}, N]}), "where a call has no argument"),
        (arguments(n={"items": arguments(n=N)}), "where a call has no argument"),
        ({"$defs": {"n": N}}, "where a call has no argument"),
        ({"patternProperties": {"^n": N}}, "where a call has no argument"),
    ],
)
def test_what_cannot(schema: Any, flaw: str) -> None:
    assert flaw in (flaw_in(schema) or "")


def test_a_page_without_them() -> None:
    good = {"name": "good", "inputSchema": arguments(n=N)}
    bad = {"name": "bad", "inputSchema": arguments(n={**N, "type": "number"})}
    page = {"tools": [good, bad, {"name": "plain"}], "nextCursor": "more", "ttlMs": 5}
    listed, flawed = without_flawed(jsonrpc.result("a", page))
    assert (listed.id, listed.result()) == ("a", {**page, "tools": [good, {"name": "plain"}]})
    assert [tool.name for tool in flawed] == ["bad"]


@pytest.mark.parametrize(
    "result",
    [{"tools": [{"name": "t"}]}, {"tools": 5, "x-mcp-header": 1}, {"tools": [{"x-mcp-header": 1}]}, {}],
)
def test_a_page_that_is_left_as_it_is(result: Any) -> None:
    page = jsonrpc.result(1, result)
    assert without_flawed(page) == (page, [])
