"""What every message passes: the interceptors, in order, and the taps that are told what became of it.

A pipeline without any of them is false and is left out, so it costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import assert_never

from shadowcat.core.exchange import PASS, Context, Pass, Reject, Replace, Reply, Verdict
from shadowcat.core.ports import Interceptor, TapSink
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message

log = logging.getLogger("shadowcat.pipeline")


class Pipeline:
    def __init__(self, interceptors: Sequence[Interceptor] = (), taps: Sequence[TapSink] = ()) -> None:
        self._interceptors = tuple(interceptors)
        self._taps = tuple(taps)

    def __bool__(self) -> bool:
        return bool(self._interceptors or self._taps)

    async def run(self, message: Message, context: Context) -> Message | Reply:
        """The message as it goes on, or the reply that stands in for the other side. Raises `Fault` when refused."""
        if not self._taps:
            return await self._judged(message, context)
        try:
            judged = await self._judged(message, context) if self._interceptors else message
        except Fault as fault:
            for tap in self._taps:
                tap.saw(message, context, Reject(fault))
            raise
        outcome = PASS if judged is message else _changed(judged)
        for tap in self._taps:
            tap.saw(message, context, outcome)
        return judged

    def failed(self, context: Context, fault: Fault) -> None:
        """Tells the taps that a request which went on was answered with a fault."""
        for tap in self._taps:
            tap.failed(context, fault)

    async def _judged(self, message: Message, context: Context) -> Message | Reply:
        """An interceptor that fails refuses: a policy that crashed has judged nothing."""
        for interceptor in self._interceptors:
            try:
                verdict = await interceptor.intercept(message, context)
                match verdict:
                    case Pass():
                        continue
                    case Replace(message=changed):
                        message = _same_place(message, changed)
                    case Reply(message=answer):
                        return Reply(_answering(message, answer))
                    case Reject(fault=fault):
                        raise fault
                    case _:
                        assert_never(verdict)
            except Fault:
                raise
            except Exception as error:
                log.exception("interceptor %s failed", type(interceptor).__name__)
                raise Fault(FaultKind.INTERNAL, reason="interceptor_failed") from error
        return message


def _changed(judged: Message | Reply) -> Verdict:
    return judged if isinstance(judged, Reply) else Replace(judged)


def _answering(message: Message, answer: Message) -> Message:
    """Whatever id an interceptor gave it: the answer to a request, or in place of one, bears that one's."""
    if not answer.is_response:
        raise Fault(FaultKind.INTERNAL, reason="interceptor_replied_no_response")
    return answer if message.id is None or answer.id == message.id else answer.with_id(message.id)


def _same_place(message: Message, changed: Message) -> Message:
    """A replacement answers to the same id and is the same kind of message: the parts around it count on that."""
    if changed.kind is not message.kind:
        raise Fault(FaultKind.INTERNAL, reason="interceptor_changed_kind")
    return changed if changed.id == message.id else changed.with_id(message.id)
