"""Parses rules: TOML, read whole or refused with one line that says where and why."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from math import isfinite
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from shadowcat.core.conditions import condition
from shadowcat.core.exchange import Direction
from shadowcat.core.interceptor import Phase
from shadowcat.core.patterns import Patterns
from shadowcat.core.phases import phases_of
from shadowcat.core.pointer import Pointer, parse_pointer
from shadowcat.core.rules import Action, Match, Rule, RuleSet
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import Era, Method

MAX_DELAY_S = 3_600.0
REFUSED = "Refused by a rule"

Names = str | list[str]


class RuleFileError(ValueError):
    """What is wrong with a file of rules, in one line."""


class _AtKey(ValueError):
    """What is wrong with one key of a rule."""

    def __init__(self, key: str, told: str) -> None:
        super().__init__(told)
        self.key = key


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    code: int
    message: str


class _Reply(msgspec.Struct, forbid_unknown_fields=True):
    result: dict[str, Any] | None = None
    error: _Error | None = None


class RuleTable(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One `[[rule]]`: what it matches, then what it does. docs/reference/rules.md has the words for users."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    method: Names | None = None
    tool: Names | None = None
    direction: Literal["to_server", "to_client"] = "to_server"
    client: Names | None = None
    upstream: Names | None = None
    era: Literal["legacy", "modern"] | None = None
    where: dict[str, Any] = {}

    log: bool = False
    delay_s: Annotated[float, Meta(gt=0, le=MAX_DELAY_S)] | None = None
    block: bool | str = False
    reply: _Reply | None = None
    replace: dict[str, Any] | None = None
    set: dict[str, Any] = {}
    remove: list[str] = []
    hold: bool = False


def read_rules(text: str, upstreams: Collection[str] | None = None) -> RuleSet:
    """Raises `RuleFileError`. `upstreams` are the names that there are, where that is known."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleFileError(f"this is no TOML: {error}") from error
    tables = document.pop("rule", [])
    if document:
        raise RuleFileError(f"unknown key {next(iter(document))!r}: a file of rules holds [[rule]] tables")
    try:
        tables = msgspec.convert(tables, list[dict[str, Any]])
    except msgspec.ValidationError as error:
        raise RuleFileError("rules are written as [[rule]], with two brackets") from error
    places = _Places(text, len(tables))
    rules: list[Rule] = []
    for number, table in enumerate(tables):
        try:
            rule = _rule(table, upstreams)
            if any(rule.name == other.name for other in rules):
                raise ValueError("there is a rule of that name already")
            rules.append(rule)
        except ValueError as error:
            place = places.of(number, error.key if isinstance(error, _AtKey) else "")
            raise RuleFileError(f"{place}rule {table.get('name', '(no name)')!r}: {error}") from error
    found = RuleSet(tuple(rules))
    if (unreached := found.never_reached()) is not None:
        rule, earlier = unreached
        place = places.of(rules.index(rule))
        why = f"rule {earlier.name!r} matches all that it would, and comes first"
        raise RuleFileError(f"{place}rule {rule.name!r} can never apply: {why}")
    return found


class _Places:
    """Where rules and their keys stand in the text, as far as that can be told without reading it as TOML."""

    def __init__(self, text: str, count: int) -> None:
        self._lines = text.splitlines()
        found = [number for number, line in enumerate(self._lines) if _RULE.match(line)]
        self._begins = found if len(found) == count else []

    def of(self, rule: int, key: str = "") -> str:
        """Ready to stand before what is said of it."""
        if not self._begins:
            return ""
        first = self._begins[rule]
        end = self._begins[rule + 1] if rule + 1 < len(self._begins) else len(self._lines)
        begins = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]") if key else _RULE
        line = next((at for at in range(first, end) if begins.match(self._lines[at])), first)
        return f"line {line + 1}: "


_RULE = re.compile(r"\s*\[\[\s*(rule|\"rule\"|'rule')\s*\]\]")


def _rule(table: dict[str, Any], upstreams: Collection[str] | None) -> Rule:
    known = RuleTable.__struct_fields__
    for key in table:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise _AtKey(key, f"there is no key {key!r}; {meant}")
    try:
        read = msgspec.convert(table, RuleTable)
    except msgspec.ValidationError as error:
        told, _, where = str(error).partition(" - at `$.")
        key = re.match(r"\w*", where)
        assert key is not None
        raise _AtKey(key[0], f"{where.rstrip('`')}: {told}" if where else told) from error
    action = _action(read)
    return Rule(read.name, _match(read, action, upstreams), action)


# What it matches.


def _match(table: RuleTable, action: Action, upstreams: Collection[str] | None) -> Match:
    for key in ("method", "tool", "client", "upstream"):
        if getattr(table, key) in ([], ""):
            raise ValueError(f"{key} names nothing, so it can never match")
    methods, tools = Patterns.of(table.method), Patterns.of(table.tool)
    if tools:
        if methods and not methods.match(Method.TOOLS_CALL):
            raise ValueError("it can never match: only tools/call names a tool")
        methods = Patterns.of(Method.TOOLS_CALL)
    named = Patterns.of(table.upstream)
    if upstreams is not None:
        for pattern in named:
            if not any(map(pattern.matches, upstreams)):
                raise ValueError(f"it can never match: no upstream is called {pattern.text!r}")
    where = tuple(_condition(pointer, wanted) for pointer, wanted in table.where.items())
    era = None if table.era is None else Era(table.era)
    part = _part_acted_on(action)
    looked_at = {one.pointer[0] for one in where} - {"params"}
    if len(looked_at | ({part} & {"result", "error"})) > 1:
        raise ValueError("it can never match: a response has a result or an error")
    phases = phases_of(Direction(table.direction), methods, era)
    if not phases:
        raise ValueError(f"it can never match: no such method goes {table.direction} in that era")
    phases &= _RESPONSES if looked_at else frozenset(Phase)
    if not phases:
        raise ValueError(f"it can never match: what goes {table.direction} under that method is no response")
    phases &= _possible_for(action, part)
    if not phases:
        raise ValueError("what it does cannot be done to what it matches")
    kind = {"result": Kind.RESULT, "error": Kind.ERROR}.get(part)
    return Match(phases, methods, tools, Patterns.of(table.client), named, era, where, kind)


_REQUESTS = frozenset({Phase.REQUEST, Phase.SERVER_REQUEST})
_RESPONSES = frozenset({Phase.RESPONSE, Phase.SERVER_RESPONSE})


def _possible_for(action: Action, part: str) -> frozenset[Phase]:
    if action.reply is not None:
        return _REQUESTS
    if part in ("result", "error"):
        return _RESPONSES
    return frozenset(Phase) - _RESPONSES if part == "params" else frozenset(Phase)


def _condition(pointer: str, wanted: Any) -> Any:
    try:
        return condition(parse_pointer(pointer), wanted)
    except ValueError as error:
        raise ValueError(f"where {pointer}: {error}") from error


# What it does.


def _action(table: RuleTable) -> Action:
    whole = [
        key
        for key, given in (
            ("block", table.block is not False),
            ("reply", table.reply is not None),
            ("replace", table.replace is not None),
        )
        if given
    ]
    edits = [key for key, given in (("set", table.set), ("remove", table.remove)) if given]
    if len(whole) > 1 or (whole and edits):
        raise ValueError(f"it cannot {' and '.join(whole + edits)} the same message")
    if table.hold and table.block is not False:
        raise ValueError("it cannot block and hold the same message")
    action = Action(
        log=table.log,
        delay_s=table.delay_s or 0.0,
        block=None if table.block is False else REFUSED if table.block is True else table.block,
        reply=None if table.reply is None else _reply(table.reply),
        replace=None if table.replace is None else _json("replace", table.replace),
        set=tuple((_pointer("set", text), _json("set", value)) for text, value in table.set.items()),
        remove=tuple(_pointer("remove", text) for text in table.remove),
        hold=table.hold,
    )
    if action == Action():
        raise ValueError("it does nothing: a rule may block, reply, replace, set, remove, delay_s, log, hold")
    return action


def _part_acted_on(action: Action) -> str:
    parts = {pointer[0] for pointer in (*(pointer for pointer, _ in action.set), *action.remove)}
    if len(parts) > 1:
        raise ValueError("no message has parameters, a result and an error at once")
    return next(iter(parts), "")


def _pointer(key: str, text: str) -> Pointer:
    try:
        return parse_pointer(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _json(key: str, value: Any) -> bytes:
    if (odd := _other_than_json(value)) is not None:
        raise ValueError(f"{key}: JSON has no value like {odd!r}")
    return msgspec.json.encode(value)


def _other_than_json(value: Any) -> Any:
    """TOML knows dates, nan and inf."""
    if isinstance(value, dict | list):
        table = cast("dict[str, Any] | list[Any]", value)
        inside = table.values() if isinstance(table, dict) else table
        return next((odd for odd in map(_other_than_json, inside) if odd is not None), None)
    is_json = isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
    return None if is_json else value


def _reply(table: _Reply) -> Message:
    if (table.result is None) is (table.error is None):
        raise ValueError("reply holds either a result or an error")
    if table.error is not None:
        return jsonrpc.error(0, {"code": table.error.code, "message": table.error.message})
    return jsonrpc.result(0, msgspec.Raw(_json("reply", table.result)))
