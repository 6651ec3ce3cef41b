"""The interceptors every message passes, in order; a pipeline without any costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import assert_never

from shadowcat.core.exchange import Context, Pass, Reject, Replace, Reply
from shadowcat.core.ports import Interceptor
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message

log = logging.getLogger("shadowcat.pipeline")


class Pipeline:
    def __init__(self, interceptors: Sequence[Interceptor] = ()) -> None:
        self._interceptors = tuple(interceptors)

    def __bool__(self) -> bool:
        return bool(self._interceptors)

    async def run(self, message: Message, context: Context) -> Message | Reply:
        """The message as it goes on, or the reply that stands in for the other side. Raises `Fault` when refused.

        An interceptor that fails refuses: a policy that crashed has judged nothing.
        """
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
