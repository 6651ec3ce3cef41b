"""Rules: what each matches, which one applies, and what it makes of a message. `core.rule_file` reads them.

One rule applies to a message, the most specific of those that match. Rules are compared by, in this order: how many
values they ask for in `where`; the tool; the method; the client; the upstream; the era. A whole name says more than
one with `*`, more text beside the `*` more than less, and that more than nothing; of several alternatives the one
that says least counts. Of rules that are equal in all of it, the first in the file applies.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shadowcat.core.conditions import Condition
from shadowcat.core.exchange import Context
from shadowcat.core.interceptor import Phase
from shadowcat.core.patterns import ANY, Patterns
from shadowcat.core.pointer import NotThere, Pointer, with_value, without
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import Era, Method


@dataclass(frozen=True, slots=True)
class Match:
    """What has to be true of a message, all of it."""

    phases: frozenset[Phase]
    methods: Patterns = ANY
    tools: Patterns = ANY
    clients: Patterns = ANY
    upstreams: Patterns = ANY
    era: Era | None = None
    where: tuple[Condition, ...] = ()
    kind: Kind | None = None

    @property
    def rank(self) -> tuple[Any, ...]:
        return (
            len(self.where),
            self.tools.rank,
            self.methods.rank,
            self.clients.rank,
            self.upstreams.rank,
            self.era is not None,
        )

    def covers(self, other: Match) -> bool:
        """Whether it matches all that the other one does, as far as that is plain to see."""
        return (
            self.phases >= other.phases
            and self.methods.cover(other.methods)
            and self.tools.cover(other.tools)
            and self.clients.cover(other.clients)
            and self.upstreams.cover(other.upstreams)
            and self.era in (None, other.era)
            and self.kind in (None, other.kind)
            and set(self.where) <= set(other.where)
        )

    def holds(self, message: Message, context: Context) -> bool:
        """What costs least is asked first. Raises `Fault` for a message that can be read in two ways."""
        # What was asked for names the tool and the arguments, also when it is the answer that is looked at.
        asked = message if message.method else context.request
        return (
            self.methods.match(message.method or context.answers)
            and (self.kind is None or self.kind is message.kind)
            and (self.era is None or self.era is context.era)
            and self.upstreams.match(context.upstream)
            and (not self.clients or _is_called(context, self.clients))
            and (not self.tools or (asked is not None and _is_tool(asked, self.tools)))
            and all(_holds(condition, message, asked) for condition in self.where)
        )


@dataclass(frozen=True, slots=True)
class Action:
    """What is done, in the order of these members."""

    log: bool = False
    delay_s: float = 0.0
    block: str | None = None
    reply: Message | None = None
    replace: bytes | None = None
    """The new parameters, or the new result."""
    set: tuple[tuple[Pointer, bytes], ...] = ()
    remove: tuple[Pointer, ...] = ()
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    match: Match
    action: Action

    def edited(self, message: Message) -> Message:
        """Raises `Fault` where it cannot be done: what a rule was to take care of must not pass as it was."""
        action = self.action
        try:
            if action.replace is not None:
                message = _with_content(message, action.replace)
            for pointer, value in action.set:
                message = with_value(message, pointer, value)
            for pointer in action.remove:
                message = without(message, pointer)
        except NotThere as error:
            told = f"Rule {self.name!r} cannot be applied to this message"
            raise Fault(
                FaultKind.REFUSED_BY_RULE, told, reason="rule_cannot_be_applied", side=Side.OURS
            ) from error
        return message


@dataclass(frozen=True, slots=True)
class RuleSet:
    rules: tuple[Rule, ...]
    """In the order of the file."""
    _by_phase: dict[Phase, tuple[Rule, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.rules, key=lambda rule: rule.match.rank, reverse=True)
        by_phase = {phase: tuple(rule for rule in ordered if phase in rule.match.phases) for phase in Phase}
        object.__setattr__(self, "_by_phase", by_phase)

    def wanted(self, phase: Phase) -> Collection[str] | None:
        """The methods that there are rules for; None for all."""
        methods: set[str] = set()
        for rule in self._by_phase[phase]:
            if not rule.match.methods or not all(pattern.is_exact for pattern in rule.match.methods):
                return None
            methods |= {pattern.text for pattern in rule.match.methods}
        return methods

    def applying(self, phase: Phase, message: Message, context: Context) -> Rule | None:
        for rule in self._by_phase[phase]:
            if rule.match.holds(message, context):
                return rule
        return None

    def never_reached(self) -> tuple[Rule, Rule] | None:
        """A rule that can never apply, and the one that applies in its place; the first such, if any."""
        for phase in Phase:
            rules = self._by_phase[phase]
            for at, rule in enumerate(rules):
                for earlier in rules[:at]:
                    if earlier.match.covers(rule.match):
                        return rule, earlier
        return None


def _is_called(context: Context, names: Patterns) -> bool:
    client = context.client
    return client is not None and names.match(client.name)


def _is_tool(request: Message, names: Patterns) -> bool:
    if request.method != Method.TOOLS_CALL:
        return False
    members = request.param_members()
    if any(key != "name" and key.casefold() == "name" for key in members):
        # There are servers that take it for the name: Go's decoder does by itself.
        raise Fault(FaultKind.INVALID_REQUEST, "Invalid request: a member that may be taken for name")
    raw = bytes(members.get("name", b""))
    return raw[:1] == b'"' and names.match(_decode_string(raw))


_decode_string = msgspec.json.Decoder(str).decode


def _holds(condition: Condition, message: Message, asked: Message | None) -> bool:
    about = asked if condition.pointer[0] == "params" else message
    return about is not None and condition.holds(about)


def _with_content(message: Message, content: bytes) -> Message:
    if message.method:
        return message.with_params(msgspec.Raw(content))
    assert message.id is not None
    return jsonrpc.result(message.id, msgspec.Raw(content))
