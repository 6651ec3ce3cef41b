"""When two messages from different days are the same: whatever is volatile does not count.

Loose: `_meta`, points in time, and what stands at the pointers to ignore are left out. Strict: only what cannot be the
same is, which is ids and progress tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import msgspec

from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Meta

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
_TIME_KEY = re.compile(r"time|date|(?:[a-z]At|_at)$")
_EPOCH_S = 1e9, 1e11
_EPOCH_MS = 1e12, 1e14
_SOME_TIME = "<time>"
_ALWAYS = frozenset({Meta.PROGRESS_TOKEN, "requestId", Meta.SUBSCRIPTION_ID})
"""Names of ids that stand inside of messages."""
_MAX_SHOWN = 120

Pattern = tuple[str, ...]


class Difference(NamedTuple):
    pointer: str
    expected: str
    got: str


class Likeness:
    def __init__(self, ignore: Iterable[str] = (), *, strict: bool = False) -> None:
        """`ignore`: JSON pointers into a message, `*` for any one step. Raises `ValueError` for what is none."""
        self._ignore = tuple(map(_pattern, ignore))
        self._strict = strict

    def key(self, request: Message) -> bytes:
        """The same for requests that are the same."""
        return (
            request.method.encode() + b" " + msgspec.json.encode(self._normal_part(request), order="sorted")
        )

    def differences(self, expected: Message, got: Message) -> Iterator[Difference]:
        """None for messages that are the same; the first of each branch otherwise."""
        if expected.kind is not got.kind or expected.method != got.method:
            yield Difference("", _named(expected), _named(got))
            return
        name = _part_name(expected)
        yield from _differences(self._normal_part(expected), self._normal_part(got), f"/{name}")

    def _normal_part(self, message: Message) -> Any:
        raw = message.raw_params or message.raw_result or message.raw_error
        name = _part_name(message)
        inner = [pattern[1:] for pattern in self._ignore if pattern[0] in (name, "*")]
        return self._normal(msgspec.json.decode(raw) if raw else {}, inner, "")

    def _normal(self, value: Any, ignore: list[Pattern], key: str) -> Any:
        match value:
            case dict():
                members = cast(dict[str, Any], value)
                return {
                    name: self._normal(member, _below(ignore, name), name)
                    for name, member in members.items()
                    if not self._is_left_out(name, ignore)
                }
            case list():
                elements = cast(list[Any], value)
                return [
                    self._normal(element, _below(ignore, str(index)), key)
                    for index, element in enumerate(elements)
                    if not _ends_at(ignore, str(index))
                ]
            case str() if not self._strict:
                return _TIME.sub(_SOME_TIME, value)
            case int() | float() if not self._strict and _TIME_KEY.search(key) and _is_epoch(value):
                return _SOME_TIME
            case float() if value.is_integer():
                return int(value)
            case _:
                return value

    def _is_left_out(self, name: str, ignore: list[Pattern]) -> bool:
        return name in _ALWAYS or (name == "_meta" and not self._strict) or _ends_at(ignore, name)


def _pattern(pointer: str) -> Pattern:
    if not pointer.startswith("/") or len(pointer) < 2:
        raise ValueError(f"{pointer!r} is no JSON pointer, for example /result/content/*/text")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/"))


def _below(ignore: list[Pattern], step: str) -> list[Pattern]:
    return (
        [pattern[1:] for pattern in ignore if len(pattern) > 1 and pattern[0] in (step, "*")]
        if ignore
        else ignore
    )


def _ends_at(ignore: list[Pattern], step: str) -> bool:
    return any(len(pattern) == 1 and pattern[0] in (step, "*") for pattern in ignore)


def _is_epoch(value: float) -> bool:
    return not isinstance(value, bool) and (
        _EPOCH_S[0] <= value < _EPOCH_S[1] or _EPOCH_MS[0] <= value < _EPOCH_MS[1]
    )


def _part_name(message: Message) -> str:
    return "params" if message.method else message.kind.value


def _named(message: Message) -> str:
    return f"{message.kind.value} {message.method}".strip() + (
        f" {_short(msgspec.json.decode(message.raw_error))}" if message.raw_error else ""
    )


def _differences(expected: Any, got: Any, at: str) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(got, dict):
        ours, theirs = cast(dict[str, Any], expected), cast(dict[str, Any], got)
        for name in ours | theirs:
            yield from _members(ours, theirs, name, at)
    elif isinstance(expected, list) and isinstance(got, list):
        yield from _elements(cast(list[Any], expected), cast(list[Any], got), at)
    elif expected != got or isinstance(expected, bool) is not isinstance(got, bool):
        yield Difference(at, _short(expected), _short(got))


def _members(expected: dict[str, Any], got: dict[str, Any], name: str, at: str) -> Iterator[Difference]:
    at = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
    if name not in got:
        yield Difference(at, _short(expected[name]), "nothing")
    elif name not in expected:
        yield Difference(at, "nothing", _short(got[name]))
    else:
        yield from _differences(expected[name], got[name], at)


def _elements(expected: list[Any], got: list[Any], at: str) -> Iterator[Difference]:
    for index, (ours, theirs) in enumerate(zip(expected, got, strict=False)):
        yield from _differences(ours, theirs, f"{at}/{index}")
    if len(expected) != len(got):
        shorter = min(len(expected), len(got))
        longer = expected if len(expected) > len(got) else got
        more = f"{len(longer) - shorter} more, the first of them {_short(longer[shorter])}"
        at = f"{at}/{shorter}"
        yield Difference(at, *((more, "nothing") if longer is expected else ("nothing", more)))


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
