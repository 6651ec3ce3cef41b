"""JSON pointers (RFC 6901) into messages: look at a value, set one, remove one.

An edit works on the text. Every value that it does not name stays the bytes it was: a number keeps its digits, a
string its escapes. Objects with two members of one name are refused, because nobody can tell which one is meant.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message

Pointer = tuple[str, ...]
"""Begins with the part of the message, `params`, `result` or `error`, and names something in it."""

PARTS = ("params", "result", "error")

APPEND = "-"
"""In place of an index: behind the last element."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_BAD_ESCAPE = re.compile(r"~(?![01])")

_decode_array = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.encode


class NotThere(ValueError):
    """What a pointer is to set has no place in the message: something on the way is neither object nor array."""


def parse_pointer(text: str) -> Pointer:
    """Raises `ValueError`."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no JSON pointer: one begins with /")
    if _BAD_ESCAPE.search(text):
        raise ValueError(f"{text!r} is no JSON pointer: after ~ stands 0 or 1")
    pointer = tuple(token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/"))
    if pointer[0] not in PARTS or len(pointer) < 2:
        raise ValueError(f"{text!r} points to nothing inside of params, result or error")
    return pointer


def look(message: Message, pointer: Pointer) -> bytes | None:
    """The value there, as it stands; None where there is none. Raises `Fault` for duplicate keys on the way."""
    raw: bytes | None = _part(message, pointer[0])
    for token in pointer[1:]:
        if not raw:
            return None
        raw = _inside(raw, token)
    return raw or None


def with_value(message: Message, pointer: Pointer, value: bytes) -> Message:
    """Sets it, and makes the objects that it is to stand in. Raises `NotThere`, or `Fault` for duplicate keys."""
    raw = _part(message, pointer[0]) or b"{}"
    return _with_part(message, pointer[0], _edited(raw, pointer[1:], value))


def without(message: Message, pointer: Pointer) -> Message:
    """The message as it is where there is nothing to remove."""
    if look(message, pointer) is None:
        return message
    raw = _part(message, pointer[0])
    return _with_part(message, pointer[0], _edited(raw, pointer[1:], None))


def _part(message: Message, name: str) -> bytes:
    match name:
        case "params":
            return message.raw_params
        case "result":
            return message.raw_result
        case "error":
            return message.raw_error
        case _:
            return b""


def _with_part(message: Message, name: str, raw: bytes) -> Message:
    if name == "params" and message.method:
        return message.with_params(Raw(raw))
    if name == "result" and message.kind is Kind.RESULT and message.id is not None:
        return jsonrpc.result(message.id, Raw(raw))
    if name == "error" and message.kind is Kind.ERROR:
        return jsonrpc.error(message.id, Raw(raw))
    raise NotThere(name)


def _inside(raw: bytes, token: str) -> bytes | None:
    if raw[:1] == b"{":
        found = jsonrpc.members(raw).get(token)
        return None if found is None else bytes(found)
    if raw[:1] == b"[" and _INDEX.fullmatch(token):
        elements = _decode_array(raw)
        return bytes(elements[int(token)]) if int(token) < len(elements) else None
    return None


def _edited(raw: bytes, pointer: Pointer, value: bytes | None) -> bytes:
    """The object or array with the value at the pointer; without what is there, if that is None."""
    token, rest = pointer[0], pointer[1:]
    if raw[:1] == b"{":
        found = jsonrpc.members(raw)
        if rest:
            found[token] = Raw(_edited(bytes(found.get(token, b"{}")), rest, value))
        elif value is None:
            del found[token]
        else:
            found[token] = Raw(value)
        return _encode(found)
    if raw[:1] != b"[":
        raise NotThere(token)
    elements = _decode_array(raw)
    if token == APPEND:
        elements.append(Raw(b"{}"))
        at = len(elements) - 1
    elif _INDEX.fullmatch(token) and int(token) < len(elements):
        at = int(token)
    else:
        raise NotThere(token)
    if rest:
        elements[at] = Raw(_edited(bytes(elements[at]), rest, value))
    elif value is None:
        del elements[at]
    else:
        elements[at] = Raw(value)
    return _encode(elements)
