"""Arguments that a tool wants repeated in `Mcp-Param-*` headers, and whether a call repeats them (PROTOCOL 2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, cast

import msgspec

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import headers as codec
from shadowcat.wire.headers import HeaderValueError
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Header

Repeated = dict[bytes, tuple[str, ...]]
"""The header, in lower case, and where in the arguments its value stands."""

MAX_TOOLS = 10_000
MARK = "x-mcp-header"
TYPES = ("string", "integer", "boolean")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class ToolHeaders:
    """What is known of one server's tools."""

    def __init__(self) -> None:
        self._known: dict[str, Repeated] = {}

    def learn(self, listed: Message) -> str | None:
        """Takes in a page of `tools/list`; returns the cursor of the next one, if there is any."""
        try:
            page = _decode_page(listed.raw_result)
        except msgspec.MsgspecError:
            return None
        for tool in page.tools:
            if tool.name in self._known or len(self._known) < MAX_TOOLS:
                self._known[tool.name] = repeated_in(bytes(tool.schema))
        return page.next_cursor

    @property
    def has_any(self) -> bool:
        return bool(self._known)

    def knows(self, call: Message) -> bool:
        return _name_of(call) in self._known

    def headers_of(self, call: Message) -> Iterator[tuple[bytes, bytes]]:
        """Those that a client sends with it."""
        arguments = call.params().get("arguments")
        for header, path in self._known.get(_name_of(call), {}).items():
            value = _at(arguments, path)
            if isinstance(value, str | int | bool):
                yield header, codec.encode_value(value)

    def check(self, call: Message, headers: Mapping[bytes, bytes]) -> None:
        """Raises `Fault` where the headers say something else than the arguments."""
        repeated = self._known.get(_name_of(call))
        if not repeated:
            return
        arguments = call.params().get("arguments")
        for header, path in repeated.items():
            _check(header, _at(arguments, path), headers.get(header))


def repeated_in(schema: bytes) -> Repeated:
    if MARK.encode() not in schema:
        return {}
    return dict(_found(msgspec.json.decode(schema), ()))


def _found(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Only what is reached through `properties` counts."""
    properties = _member(schema, "properties")
    if not isinstance(properties, dict):
        return
    for name, inner in cast("dict[str, Any]", properties).items():
        mark = _member(inner, MARK)
        if is_header_name(mark) and _member(inner, "type") in TYPES:
            yield Header.PARAM_PREFIX + mark.lower().encode(), (*path, name)
        yield from _found(inner, (*path, name))


def is_header_name(mark: Any) -> TypeGuard[str]:
    """Whether it can be the end of one (RFC 9110 5.6.2); what is no token would end the header, or the head."""
    return isinstance(mark, str) and _TOKEN.fullmatch(mark) is not None


def _check(header: bytes, value: Any, given: bytes | None) -> None:
    if value is not None and not isinstance(value, str | int | bool):
        # Not of its type: the server says so.
        return
    name = header.decode()
    if given is None:
        if value is not None:
            raise _mismatch(f"{name} is missing")
        return
    try:
        if value is not None and codec.matches(given, value):
            return
    except HeaderValueError as error:
        raise _mismatch(f"{name}: {error}") from error
    raise _mismatch(f"{name} does not match the body")


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        arguments = _member(arguments, name)
    return arguments


def _member(value: Any, name: str) -> Any:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None


def _name_of(call: Message) -> str:
    try:
        return _decode_name(call.raw_params).name
    except msgspec.MsgspecError:
        return ""


def _mismatch(why: str) -> Fault:
    return Fault(FaultKind.HEADER_MISMATCH, f"Header mismatch: {why}")


class _Tool(msgspec.Struct):
    name: str
    schema: msgspec.Raw = msgspec.field(name="inputSchema", default=msgspec.Raw(b"{}"))


class _Page(msgspec.Struct):
    tools: list[_Tool]
    next_cursor: str | None = msgspec.field(name="nextCursor", default=None)


class _Named(msgspec.Struct):
    name: str


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_name = msgspec.json.Decoder(_Named).decode
