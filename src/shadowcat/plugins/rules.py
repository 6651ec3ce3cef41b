"""Applies the rules of a file; `core.rules` decides which one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Annotated

import msgspec

from shadowcat.core.exchange import PASS, Context, Reject, Replace, Reply, Verdict
from shadowcat.core.interceptor import Interceptor, Judgement, Phase
from shadowcat.core.rules import Rule, RuleSet
from shadowcat.errors import Fault, FaultKind
from shadowcat.plugins.hold import HoldDesk
from shadowcat.wire.jsonrpc import Message

log = logging.getLogger("shadowcat.rules")

_MORE_S = 5.0


class RulesOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    file: Annotated[
        str, msgspec.Meta(description="A file of rules for messages, in TOML; reloaded when it changes.")
    ]


class Rules(Interceptor):
    """Never changes: other rules are another one of these, put in its place."""

    def __init__(self, rules: RuleSet, desk: HoldDesk | None = None) -> None:
        self.rules = rules
        self.desk = desk or HoldDesk()
        delays = [rule.action.delay_s for rule in rules.rules]
        self.deadline_s = max(delays, default=0.0) + self.desk.options.timeout_s + _MORE_S

    def wanted(self, phase: Phase) -> Collection[str] | None:
        return self.rules.wanted(phase)

    def on_request(self, message: Message, context: Context) -> Judgement:
        return self._judged(Phase.REQUEST, message, context)

    def on_response(self, message: Message, context: Context) -> Judgement:
        return self._judged(Phase.RESPONSE, message, context)

    def on_notification(self, message: Message, context: Context) -> Judgement:
        return self._judged(Phase.NOTIFICATION, message, context)

    def on_server_request(self, message: Message, context: Context) -> Judgement:
        return self._judged(Phase.SERVER_REQUEST, message, context)

    def on_server_response(self, message: Message, context: Context) -> Judgement:
        return self._judged(Phase.SERVER_RESPONSE, message, context)

    def on_server_notification(self, message: Message, context: Context) -> Judgement:
        return self._judged(Phase.SERVER_NOTIFICATION, message, context)

    def _judged(self, phase: Phase, message: Message, context: Context) -> Judgement:
        rule = self.rules.applying(phase, message, context)
        if rule is None:
            return PASS
        if rule.action.log:
            _tell(rule, phase, message, context)
        if rule.action.delay_s or rule.action.hold:
            return self._judged_later(rule, message, context)
        return _verdict(rule, message)

    async def _judged_later(self, rule: Rule, message: Message, context: Context) -> Verdict:
        if rule.action.delay_s:
            await asyncio.sleep(rule.action.delay_s)
        verdict = _verdict(rule, message)
        if not rule.action.hold or isinstance(verdict, Reply):
            return verdict
        edited = verdict.message if isinstance(verdict, Replace) else message
        decided = await self.desk.hold(edited, context, rule.name)
        # What was released unedited goes on as the rule has changed it.
        return verdict if decided is PASS else decided


def _verdict(rule: Rule, message: Message) -> Verdict:
    action = rule.action
    if action.block is not None:
        return Reject(Fault(FaultKind.REFUSED_BY_RULE, action.block, data={"rule": rule.name}))
    if action.reply is not None:
        return Reply(action.reply)
    edited = rule.edited(message)
    return PASS if edited is message else Replace(edited)


def _tell(rule: Rule, phase: Phase, message: Message, context: Context) -> None:
    """What passed is not in the line: a log is no place for secrets."""
    log.info(
        "rule %r: %s %s, id %r, session %s, upstream %s, %d bytes",
        rule.name,
        phase.value.replace("_", " "),
        message.method or context.answers,
        message.id,
        (context.session_id or "none")[:8],
        context.upstream or "not chosen yet",
        len(message.raw),
    )
