"""What every message passes: the interceptors, in order, and the taps, which hear what became of it.

Whoever has a message looks first for the steps that want it. Where there are none, there is nothing to wait for and no
`Context` to make. Where all hooks judge at once there is nothing to wait for either: see `begin`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from shadowcat.core.chain import Chain, Step, Steps
from shadowcat.core.exchange import (
    PASS,
    TO_CLIENT,
    TO_SERVER,
    Context,
    Direction,
    Reject,
    Replace,
    Reply,
    Verdict,
)
from shadowcat.core.interceptor import Interceptor
from shadowcat.core.judging import Judging, Unusable
from shadowcat.core.ports import SessionTap, TapOfSessions, TapSink
from shadowcat.errors import Fault, FaultKind, Side, without_frames
from shadowcat.wire.jsonrpc import Message

ContextOf = Callable[[Direction, Message | None], Context]
"""Of what goes in a direction in a session, with the request that it belongs to."""

log = logging.getLogger("shadowcat.pipeline")


class Pipeline:
    def __init__(self, interceptors: Sequence[Interceptor] = (), taps: Sequence[TapSink] = ()) -> None:
        self.taps: Sequence[TapSink] = tuple(taps)
        """Another object whenever they are others."""
        self.is_tapped = bool(taps)
        self.nobody: SessionTap = _Several(self, ())
        """What a session tells that has told nothing yet, or never will again."""
        self.put(interceptors)
        self.failures: Counter[tuple[str, str]] = Counter()
        """How often an interceptor or a tap failed, by its name and how."""

    def __bool__(self) -> bool:
        return self.is_used

    @property
    def interceptors(self) -> Sequence[Interceptor]:
        return self._chain.interceptors

    def replace(self, old: Interceptor, new: Interceptor) -> None:
        """Puts another in its place."""
        self.put([new if one is old else one for one in self._chain.interceptors])

    def put(self, interceptors: Sequence[Interceptor]) -> None:
        """In place of all, for messages to come; those under way are judged to the end by the old ones."""
        self._chain = Chain(interceptors)
        self.steps = self._chain.steps
        """Which hooks want a message, by its kind, its method (that of the request it answers), its direction."""
        self.judges = bool(interceptors)
        """False where no interceptor is there to look for."""
        self.is_used = bool(interceptors or self.taps)
        """False where there is nobody at all."""

    def tap(self, taps: Sequence[TapSink]) -> None:
        """Others in place of all that are told."""
        self.taps = tuple(taps)
        self.is_tapped = bool(taps)
        self.is_used = bool(self.interceptors or taps)

    # Interceptors.

    def begin(self, message: Message, context: Context, steps: Steps) -> Message | Reply | Undecided:
        """What `steps` make of it: the message as it goes on, or the reply that stands in for the other side.

        Raises `Fault` when it is refused. Taps are told of all that is decided.
        """
        judging = Judging(self._chain, steps, message, context, self._failed)
        try:
            waited_for = judging.go_on()
        except Fault as fault:
            self.tell(message, context, Reject(fault))
            raise
        if waited_for is not None:
            return Undecided(self, judging, message, waited_for)
        return self._decided(judging, message)

    async def run(self, message: Message, context: Context) -> Message | Reply:
        """The same, with what has to be waited for."""
        steps = self.steps(message.kind, message.method or context.answers, context.direction)
        judged = self.begin(message, context, steps)
        return await judged.outcome() if isinstance(judged, Undecided) else judged

    async def finish(self, judging: Judging, message: Message, waited_for: Awaitable[Any]) -> Message | Reply:
        """For `Undecided`."""
        waiting: Awaitable[Any] | None = waited_for
        try:
            while waiting is not None:
                await judging.settle(_in_time(judging.steps[judging.at - 1], waiting))
                waiting = judging.go_on()
        except Fault as fault:
            self.tell(message, judging.context, Reject(fault))
            raise
        return self._decided(judging, message)

    def _decided(self, judging: Judging, message: Message) -> Message | Reply:
        outcome = judging.outcome
        if self.taps:
            self.tell(message, judging.context, PASS if outcome is message else _changed(outcome))
        return outcome

    def _failed(self, step: Step, error: Exception) -> None:
        """Refuses, unless it was said that this one may fail: a policy that crashed has judged nothing."""
        interceptor = step.interceptor
        how = error.reason if isinstance(error, Unusable) else type(error).__name__
        if self._is_first_time(interceptor.name, how):
            log.error(
                "interceptor %s failed on a %s (%s); what it fails on %s. It is not logged again.",
                interceptor.name,
                step.phase.value.replace("_", " "),
                how,
                "passes" if interceptor.fails_open else "is refused",
                exc_info=None if isinstance(error, Unusable) else error,
            )
        # It has been logged, and may be one for all.
        without_frames(error)
        if interceptor.fails_open:
            return
        kind = FaultKind.DEADLINE if isinstance(error, _Late) else FaultKind.INTERNAL
        reason = error.reason if isinstance(error, Unusable) else "interceptor_failed"
        raise Fault(kind, reason=reason, side=Side.OURS) from error

    def _is_first_time(self, name: str, how: str) -> bool:
        self.failures[name, how] += 1
        return self.failures[name, how] == 1

    # Taps.

    def of_session(self, context: ContextOf) -> SessionTap:
        """The taps, as they are told of the calls of one session that no interceptor judges."""
        taps = [self._of_session(tap, context) for tap in self.taps]
        return taps[0] if len(taps) == 1 else _Several(self, taps)

    def _of_session(self, tap: TapSink, context: ContextOf) -> SessionTap:
        if isinstance(tap, TapOfSessions):
            try:
                return tap.of_session(context(TO_SERVER, None))
            except Exception as error:
                self.tap_failed(tap, error)
        return _Told(self, tap, context)

    def tell(self, message: Message, context: Context, outcome: Verdict = PASS) -> None:
        """Tells the taps; of a message that interceptors judge, they are told by whoever has them judge it."""
        for tap in self.taps:
            self.tell_one(tap, message, context, outcome)

    def tell_one(self, tap: TapSink, message: Message, context: Context, outcome: Verdict = PASS) -> None:
        try:
            tap.saw(message, context, outcome)
        except Exception as error:
            self.tap_failed(tap, error)

    def failed(self, context: Context, fault: Fault) -> None:
        """Tells the taps that a request which went on was answered with a fault."""
        for tap in self.taps:
            try:
                tap.failed(context, fault)
            except Exception as error:
                self.tap_failed(tap, error)

    def tap_failed(self, tap: TapSink | SessionTap, error: Exception) -> None:
        """What it was told of may be on its way already: whoever only looks on stops nothing."""
        name, how = type(tap).__name__, type(error).__name__
        if self._is_first_time(name, how):
            log.error(
                "tap %s failed (%s); the traffic goes on. It is not logged again.", name, how, exc_info=error
            )
        without_frames(error)


class _Told:
    """A tap for which no session is like another."""

    __slots__ = ("_context", "_pipeline", "_tap")

    def __init__(self, pipeline: Pipeline, tap: TapSink, context: ContextOf) -> None:
        self._pipeline = pipeline
        self._tap = tap
        self._context = context

    def asked(self, request: Message) -> None:
        self._pipeline.tell_one(self._tap, request, self._context(TO_SERVER, None))

    def answered(self, answer: Message, request: Message) -> None:
        self._pipeline.tell_one(self._tap, answer, self._context(TO_CLIENT, request))


class _Several:
    """Taps that are told one after the other: one that fails stops no other."""

    __slots__ = ("_pipeline", "_taps")

    def __init__(self, pipeline: Pipeline, taps: Sequence[SessionTap]) -> None:
        self._pipeline = pipeline
        self._taps = taps

    def asked(self, request: Message) -> None:
        for tap in self._taps:
            try:
                tap.asked(request)
            except Exception as error:
                self._pipeline.tap_failed(tap, error)

    def answered(self, answer: Message, request: Message) -> None:
        for tap in self._taps:
            try:
                tap.answered(answer, request)
            except Exception as error:
                self._pipeline.tap_failed(tap, error)


class Undecided:
    """A message whose judgement has to be waited for. Its outcome is awaited, once, or it is let go of."""

    __slots__ = ("_judging", "_message", "_pipeline", "_waited_for")

    def __init__(
        self, pipeline: Pipeline, judging: Judging, message: Message, waited_for: Awaitable[Any]
    ) -> None:
        self._pipeline = pipeline
        self._judging = judging
        self._message = message
        self._waited_for = waited_for

    async def outcome(self) -> Message | Reply:
        """Raises `Fault` when it is refused."""
        return await self._pipeline.finish(self._judging, self._message, self._waited_for)

    def let_go(self) -> None:
        if inspect.iscoroutine(self._waited_for):
            self._waited_for.close()


class _Late(Unusable):
    pass


async def _in_time(step: Step, judgement: Awaitable[Any]) -> Any:
    limit = asyncio.timeout(step.interceptor.deadline_s)
    before = _cancellations()
    try:
        async with limit:
            return await judgement
    except TimeoutError as error:
        if limit.expired():
            raise _Late(reason="interceptor_deadline") from error
        raise
    finally:
        if _cancellations() > before:
            # Whatever the hook made of it: whoever runs here would go on for ever, and be waited for.
            raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _changed(judged: Message | Reply) -> Verdict:
    return judged if isinstance(judged, Reply) else Replace(judged)
