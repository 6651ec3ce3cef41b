"""What a rule asks of a value in a message."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import msgspec

from shadowcat.core.patterns import Pattern
from shadowcat.core.pointer import Pointer, look
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import json_strict
from shadowcat.wire.json_strict import JsonError
from shadowcat.wire.jsonrpc import Message

Plain = str | bool | int | float


class Tests(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """All that are given have to hold."""

    like: str | None = None
    """A string that matches, `*` being any text."""
    over: int | float | None = None
    under: int | float | None = None
    """A number that is greater, or less."""
    present: bool | None = None
    """Whether there is such a value at all."""


class Condition(NamedTuple):
    """One of the values, or one that passes the tests."""

    pointer: Pointer
    values: tuple[Plain, ...]
    tests: Tests | None = None

    def holds(self, message: Message) -> bool:
        """Raises `Fault` for duplicate keys: a rule must not read another value than the server will."""
        raw = look(message, self.pointer)
        if self.tests is None:
            return raw is not None and any(_equal(_loaded(raw), value) for value in self.values)
        if raw is None:
            return self.tests.present is False
        return self.tests.present is not False and _passes(_loaded(raw), self.tests)


def condition(pointer: Pointer, wanted: Any) -> Condition:
    """Raises `ValueError` where it cannot be read, or can never hold."""
    if isinstance(wanted, dict):
        return Condition(pointer, (), _tests(cast("dict[str, Any]", wanted)))
    values = tuple(cast("list[Any]", wanted)) if isinstance(wanted, list) else (wanted,)
    if not values:
        raise ValueError("an empty list matches nothing")
    for value in values:
        if not isinstance(value, Plain):
            raise ValueError(f"a value is compared with text, a number or a boolean, and not with {value!r}")
    return Condition(pointer, values)


def _tests(table: dict[str, Any]) -> Tests:
    try:
        tests = msgspec.convert(table, Tests)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}; a test is one of {', '.join(Tests.__struct_fields__)}") from error
    if tests == Tests():
        raise ValueError("nothing is tested")
    over, under, is_number = tests.over, tests.under, tests.over is not None or tests.under is not None
    if over is not None and under is not None and over >= under:
        raise ValueError(f"no number is over {over} and under {under}")
    if is_number and tests.like is not None:
        raise ValueError("no value is both a number and a string")
    if tests.present is False and (is_number or tests.like is not None):
        raise ValueError("what is not there passes no other test")
    return tests


def _passes(value: Any, tests: Tests) -> bool:
    if tests.like is not None and not (isinstance(value, str) and Pattern(tests.like).matches(value)):
        return False
    if tests.over is None and tests.under is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (tests.over is None or value > tests.over) and (tests.under is None or value < tests.under)


def _equal(value: Any, wanted: Plain) -> bool:
    """As in JSON, where true is not 1, and 1 is 1.0."""
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted


def _loaded(raw: bytes) -> Any:
    try:
        return json_strict.loads(raw)
    except JsonError as error:
        raise Fault(FaultKind.INVALID_REQUEST, f"Invalid request: {error}") from error
