"""What every message passes: the interceptors, in order, and the taps that are told what became of it.

Whoever has a message asks `wants` first. Where nobody wants it, there is nothing to wait for and no `Context` to make.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from shadowcat.core.chain import Chain, Step
from shadowcat.core.exchange import PASS, Context, Direction, Pass, Reject, Replace, Reply, Verdict
from shadowcat.core.interceptor import Interceptor
from shadowcat.core.ports import TapSink
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.wire.jsonrpc import Kind, Message

log = logging.getLogger("shadowcat.pipeline")


class Pipeline:
    def __init__(self, interceptors: Sequence[Interceptor] = (), taps: Sequence[TapSink] = ()) -> None:
        self._chain = Chain(interceptors)
        self._taps = tuple(taps)
        self.is_tapped = bool(taps)
        self.failures: Counter[tuple[str, str]] = Counter()
        """How often an interceptor failed, by its name and how."""

    def __bool__(self) -> bool:
        """False where there is nobody at all."""
        return bool(self._chain.interceptors or self._taps)

    @property
    def interceptors(self) -> Sequence[Interceptor]:
        return self._chain.interceptors

    def wants(self, kind: Kind, method: str, direction: Direction) -> bool:
        """Whether an interceptor wants to judge it. `method`: of the request it answers, if it is a response."""
        return bool(self._chain.steps(kind, method, direction))

    def tell(self, message: Message, context: Context, outcome: Verdict = PASS) -> None:
        """Tells the taps; of a message that interceptors judge, they are told by `run`."""
        for tap in self._taps:
            tap.saw(message, context, outcome)

    def replace(self, old: Interceptor, new: Interceptor) -> None:
        """Puts another in its place."""
        self.put([new if one is old else one for one in self._chain.interceptors])

    def put(self, interceptors: Sequence[Interceptor]) -> None:
        """In place of all, for messages to come; those under way are judged to the end by the old ones."""
        self._chain = Chain(interceptors)

    async def run(self, message: Message, context: Context) -> Message | Reply:
        """The message as it goes on, or the reply that stands in for the other side. Raises `Fault` when refused."""
        try:
            judged = await self._judged(message, context)
        except Fault as fault:
            self.tell(message, context, Reject(fault))
            raise
        if self._taps:
            self.tell(message, context, PASS if judged is message else _changed(judged))
        return judged

    def failed(self, context: Context, fault: Fault) -> None:
        """Tells the taps that a request which went on was answered with a fault."""
        for tap in self._taps:
            tap.failed(context, fault)

    async def _judged(self, message: Message, context: Context) -> Message | Reply:
        chain = self._chain
        steps = chain.steps(message.kind, message.method or context.answers, context.direction)
        at = 0
        while at < len(steps):
            step = steps[at]
            at += 1
            try:
                verdict = step.hook(message, context)
                if verdict is PASS:
                    continue
                if not isinstance(verdict, Verdict):
                    verdict = await _in_time(step, verdict)
                judged = _outcome(message, verdict)
            except Fault:
                raise
            except Exception as error:
                self._failed(step, error)
                continue
            if isinstance(judged, Reply):
                return judged
            if judged.method != message.method:
                # Those that come later and want what it is called now must not be evaded by the change.
                renamed = chain.steps(judged.kind, judged.method, context.direction)
                steps, at = tuple(later for later in renamed if later.place > step.place), 0
            message = judged
        return message

    def _failed(self, step: Step, error: Exception) -> None:
        """Refuses, unless it was said that this one may fail: a policy that crashed has judged nothing."""
        interceptor = step.interceptor
        how = error.reason if isinstance(error, _Unusable) else type(error).__name__
        known = interceptor.name, how
        if known not in self.failures:
            log.error(
                "interceptor %s failed on a %s (%s); what it fails on %s. It is not logged again.",
                interceptor.name,
                step.phase.value.replace("_", " "),
                how,
                "passes" if interceptor.fails_open else "is refused",
                exc_info=None if isinstance(error, _Unusable) else error,
            )
        self.failures[known] += 1
        if interceptor.fails_open:
            return
        kind = FaultKind.DEADLINE if isinstance(error, _Late) else FaultKind.INTERNAL
        reason = error.reason if isinstance(error, _Unusable) else "interceptor_failed"
        raise Fault(kind, reason=reason, side=Side.OURS) from error


class _Unusable(Exception):
    """What an interceptor gave that cannot be done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Late(_Unusable):
    pass


async def _in_time(step: Step, judgement: Any) -> Verdict:
    """What a hook gave that is no verdict: it will be one, or the hook is wrong."""
    if not inspect.isawaitable(judgement):
        raise _Unusable(reason="interceptor_gave_no_verdict")
    limit = asyncio.timeout(step.interceptor.deadline_s)
    try:
        async with limit:
            verdict: Any = await judgement
    except TimeoutError as error:
        if limit.expired():
            raise _Late(reason="interceptor_deadline") from error
        raise
    if not isinstance(verdict, Verdict):
        raise _Unusable(reason="interceptor_gave_no_verdict")
    return verdict


def _outcome(message: Message, verdict: Verdict) -> Message | Reply:
    match verdict:
        case Pass():
            return message
        case Replace(message=changed):
            return _same_place(message, changed)
        case Reply(message=answer):
            return Reply(_answering(message, answer))
        case Reject(fault=fault):
            raise fault


def _changed(judged: Message | Reply) -> Verdict:
    return judged if isinstance(judged, Reply) else Replace(judged)


def _answering(message: Message, answer: Message) -> Message:
    """Whatever id an interceptor gave it: the answer to a request, or in place of one, bears that one's."""
    if not answer.is_response:
        raise _Unusable(reason="interceptor_replied_no_response")
    return answer if message.id is None or answer.id == message.id else answer.with_id(message.id)


def _same_place(message: Message, changed: Message) -> Message:
    """A replacement answers to the same id and is the same kind of message: the parts around it count on that."""
    if changed.kind is not message.kind:
        raise _Unusable(reason="interceptor_changed_kind")
    return changed if changed.id == message.id else changed.with_id(message.id)
