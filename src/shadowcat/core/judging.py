"""One message passing the interceptors, and what each verdict makes of it.

Nothing is waited for here. A hook that has to be is handed to who can wait, and its verdict brought back: so there is
one way of judging, for those that have a task and for those that have none.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from shadowcat.core.chain import Chain, Step, Steps
from shadowcat.core.exchange import PASS, TO_CLIENT, Context, Pass, Reject, Replace, Reply, Verdict
from shadowcat.errors import Fault, FaultKind, without_frames
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message

OnFailed = Callable[[Step, Exception], object]
"""Hears that a hook failed. Raises `Fault` where that means that the message is refused."""


class Unusable(Exception):
    """What an interceptor gave that cannot be done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Judging(msgspec.Struct, eq=False):
    chain: Chain
    """The one that it began with, whatever takes its place meanwhile."""
    steps: Steps
    message: Message
    context: Context
    on_failed: OnFailed
    reply: Reply | None = None
    """What stands in for the other side; nobody else is asked then."""
    at: int = 0

    @property
    def outcome(self) -> Message | Reply:
        return self.reply or self.message

    def go_on(self) -> Awaitable[Any] | None:
        """Asks one hook after another. Returns what a hook wants to be waited for, None once all have judged.

        Raises `Fault` when the message is refused.
        """
        while self.at < len(self.steps):
            step = self.steps[self.at]
            self.at += 1
            try:
                verdict: Any = step.hook(self.message, self.context)
                if verdict is PASS:
                    continue
                if not isinstance(verdict, Verdict):
                    return _to_be_awaited(verdict)
                self._settle(step, verdict)
            except Fault as fault:
                raise self._fault_of_this_one(fault) from fault.__cause__
            except Exception as error:
                self.on_failed(step, error)
        return None

    async def settle(self, verdict: Awaitable[Any]) -> None:
        """Takes what came of waiting for the last hook; likewise."""
        step = self.steps[self.at - 1]
        try:
            self._settle(step, await verdict)
        except Fault as fault:
            raise self._fault_of_this_one(fault) from fault.__cause__
        except Exception as error:
            self.on_failed(step, error)

    def _fault_of_this_one(self, fault: Fault) -> Fault:
        message = self.message
        if (
            fault.kind is FaultKind.INVALID_REQUEST
            and self.context.direction is TO_CLIENT
            and message.is_response
            and not jsonrpc.is_readable(message)
        ):
            # Who reads an answer that cannot be read stumbles over what the server did, not the client.
            return Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_sent_garbage", sent=True)
        # An interceptor may have one for all.
        return without_frames(fault).anew()

    def _settle(self, step: Step, verdict: Any) -> None:
        judged = _outcome(self.message, verdict)
        if isinstance(judged, Reply):
            self.reply, self.steps = judged, ()
            return
        if judged.method != self.message.method:
            # Those that come later and want what it is called now must not be evaded by the change.
            renamed = self.chain.steps(judged.kind, judged.method, self.context.direction)
            self.steps, self.at = tuple(later for later in renamed if later.place > step.place), 0
        self.message = judged


def _to_be_awaited(judgement: Any) -> Awaitable[Any]:
    """What a hook gave that is no verdict: it will be one, or the hook is wrong."""
    if not inspect.isawaitable(judgement):
        raise Unusable(reason="interceptor_gave_no_verdict")
    return judgement


def _outcome(message: Message, verdict: Any) -> Message | Reply:
    match verdict:
        case Pass():
            return message
        case Replace(message=changed):
            return _same_place(message, changed)
        case Reply(message=answer):
            return Reply(_answering(message, answer))
        case Reject(fault=fault):
            raise fault
        case _:
            raise Unusable(reason="interceptor_gave_no_verdict")


def _answering(message: Message, answer: Message) -> Message:
    """Whatever id an interceptor gave it: the answer to a request, or in place of one, bears that one's."""
    if not answer.is_response:
        raise Unusable(reason="interceptor_replied_no_response")
    return answer if message.id is None or answer.id == message.id else answer.with_id(message.id)


def _same_place(message: Message, changed: Message) -> Message:
    """A replacement answers to the same id and is the same kind of message: the parts around it count on that."""
    if changed.kind is not message.kind:
        raise Unusable(reason="interceptor_changed_kind")
    return changed if changed.id == message.id else changed.with_id(message.id)
