"""Tools that an HTTP client must not offer, because headers cannot carry what they want repeated (PROTOCOL 2.6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Raw

from shadowcat.core.annotations import MARK, TYPES, is_header_name
from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message

_TABLES = frozenset({"$defs", "definitions", "patternProperties", "dependentSchemas"})
"""Keywords whose values are tables of schemas; what else is a table may hold anything."""
_SCHEMAS = frozenset(
    {
        "items", "prefixItems", "additionalItems", "unevaluatedItems", "contains",
        "additionalProperties", "unevaluatedProperties", "propertyNames",
        "anyOf", "oneOf", "allOf", "not", "if", "then", "else",
    }
)  # fmt: skip


class FlawedTool(NamedTuple):
    name: str
    flaw: str


class _Tool(msgspec.Struct):
    name: str
    schema: Raw = msgspec.field(name="inputSchema", default=Raw(b"{}"))


def without_flawed(listed: Message) -> tuple[Message, list[FlawedTool]]:
    """A page of `tools/list` without them; the same message where there are none."""
    if listed.kind is not Kind.RESULT or MARK.encode() not in listed.raw_result:
        return listed, []
    kept: list[Raw] = []
    flawed: list[FlawedTool] = []
    try:
        page = jsonrpc.members(listed.raw_result)
        for raw in msgspec.json.decode(page.get("tools", Raw(b"[]")), type=list[Raw]):
            tool = msgspec.json.decode(raw, type=_Tool)
            flaw = flaw_in(msgspec.json.decode(tool.schema))
            if flaw is None:
                kept.append(raw)
            else:
                flawed.append(FlawedTool(tool.name, flaw))
    except (Fault, msgspec.MsgspecError):
        # Not what it should be: that is for the client to see.
        return listed, []
    if not flawed:
        return listed, []
    assert listed.id is not None
    page["tools"] = Raw(msgspec.json.encode(kept))
    return jsonrpc.result(listed.id, Raw(msgspec.json.encode(page))), flawed


def flaw_in(schema: Any) -> str | None:
    """The first thing that is wrong with what a tool's arguments are annotated with."""
    seen: set[str] = set()
    for annotated, is_argument in _annotated(schema, is_reached=True, is_argument=False):
        mark = annotated[MARK]
        if not is_header_name(mark):
            return f"{MARK} names no header"
        if not is_argument:
            return f"{MARK} {mark} stands where a call has no argument"
        if annotated.get("type") not in TYPES:
            return f"{MARK} {mark} is of an argument that is no string, integer or boolean"
        if mark.lower() in seen:
            return f"{MARK} {mark} stands twice"
        seen.add(mark.lower())
    return None


def _annotated(schema: Any, *, is_reached: bool, is_argument: bool) -> Iterator[tuple[dict[str, Any], bool]]:
    """Each part of it that is, and whether that is an argument, or one in an argument, of every call."""
    if isinstance(schema, list):
        for one in cast("list[Any]", schema):
            yield from _annotated(one, is_reached=False, is_argument=False)
    if not isinstance(schema, dict):
        return
    members = cast("dict[str, Any]", schema)
    if MARK in members:
        yield members, is_argument
    for keyword, inner in members.items():
        if keyword == "properties" and isinstance(inner, dict):
            for one in cast("dict[str, Any]", inner).values():
                yield from _annotated(one, is_reached=is_reached, is_argument=is_reached)
        elif keyword in _TABLES and isinstance(inner, dict):
            for one in cast("dict[str, Any]", inner).values():
                yield from _annotated(one, is_reached=False, is_argument=False)
        elif keyword in _SCHEMAS:
            yield from _annotated(inner, is_reached=False, is_argument=False)
