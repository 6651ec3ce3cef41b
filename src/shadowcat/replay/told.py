"""Describes differences: the method and its subject, a pointer, and both values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shadowcat.core.likeness import Difference, Likeness
from shadowcat.errors import Fault
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import NAMED_BY


def compared(
    likeness: Likeness,
    expected: Sequence[Message],
    got: Sequence[Message],
    words: tuple[str, str] = ("expected", "got"),
) -> Iterator[str]:
    """What came of a request, twice: a line for each difference, without the request's name."""
    then, answer_then = _split(expected)
    now, answer_now = _split(got)
    for was, is_now in zip(then, now, strict=False):
        for found in likeness.differences(was, is_now):
            yield f" {was.method}{line(found, words)}"
    for missing in then[len(now) :]:
        yield f" {missing.method}: {words[0]} only"
    for surplus in now[len(then) :]:
        yield f" {surplus.method}: {words[1]} only"
    if answer_then is not None and answer_now is not None:
        for found in likeness.differences(answer_then, answer_now):
            yield line(found, words)
    elif answer_then is not answer_now:
        yield f" its answer: {words[0] if answer_now is None else words[1]} only"


def line(found: Difference, words: tuple[str, str]) -> str:
    where = f" {found.pointer}" if found.pointer else ""
    return f"{where}: {words[0]} {found.expected}, {words[1]} {found.got}"


def _split(messages: Sequence[Message]) -> tuple[Sequence[Message], Message | None]:
    if messages and messages[-1].is_response:
        return messages[:-1], messages[-1]
    return messages, None


def named(message: Message) -> str:
    """The method, and what it is about."""
    if message.is_response:
        return f"answer ({message.kind.value})"
    name = name_in(message)
    return message.method if name is None else f"{message.method} {name}"


def name_in(request: Message) -> str | None:
    parameter = NAMED_BY.get(request.method)
    if parameter is None:
        return None
    try:
        name = request.params().get(parameter)
    except Fault:
        return None
    return name if isinstance(name, str) else None
