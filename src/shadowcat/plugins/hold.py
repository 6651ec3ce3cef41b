"""Holds messages for a person, who looks at each and releases, edits or drops it.

An interceptor that awaits `HoldDesk.hold` pauses the message for as long. What is on the other side of the desk, such
as the admin listener, calls the rest.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.exchange import PASS, Context, Reject, Replace, Verdict
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message

log = logging.getLogger("shadowcat.plugins")


class HoldOptions(Struct, frozen=True, kw_only=True):
    max_held: Annotated[
        int, Meta(ge=1, le=10_000, description="How many messages may be held; any more are refused.")
    ] = 100
    timeout_s: Annotated[float, Meta(gt=0, le=86_400, description="How long a message may be held.")] = 300.0
    on_timeout: Annotated[
        Literal["refuse", "release"], Meta(description="What happens to a message that nobody decided on.")
    ] = "refuse"


@dataclass(frozen=True, slots=True)
class Held:
    id: int
    message: Message
    context: Context
    reason: str
    """Such as the name of the rule that holds it."""
    since_wall: float


class HoldDesk:
    def __init__(self, options: HoldOptions | None = None, clock: Clock | None = None) -> None:
        self.options = options or HoldOptions()
        self.is_attended = True
        """Whether there is anything at which somebody could decide; where not, that is told once."""
        self._has_told = False
        self._clock = clock or SystemClock()
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[Held, asyncio.Future[Verdict]]] = {}

    # For interceptors.

    async def hold(self, message: Message, context: Context, reason: str = "") -> Verdict:
        """What was decided; who is cancelled meanwhile holds it no longer."""
        options = self.options
        if len(self._waiting) >= options.max_held:
            return Reject(Fault(FaultKind.OVER_CAPACITY, reason="too_many_held"))
        if not self.is_attended:
            self._tell_once(reason)
        decided: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        held = Held(next(self._ids), message, context, reason, self._clock.wall())
        self._waiting[held.id] = held, decided
        try:
            async with asyncio.timeout(options.timeout_s):
                return await decided
        except TimeoutError:
            if options.on_timeout == "release":
                return PASS
            return Reject(Fault(FaultKind.DEADLINE, reason="held_too_long", side=Side.OURS))
        finally:
            del self._waiting[held.id]

    def _tell_once(self, reason: str) -> None:
        if self._has_told:
            return
        self._has_told = True
        log.warning(
            "'%s' holds messages, and nobody can release them, because there is no admin listener: "
            "each is %sd after %g s",
            reason,
            self.options.on_timeout,
            self.options.timeout_s,
        )

    # For who decides.

    def held(self) -> Sequence[Held]:
        """The oldest first."""
        return [held for held, _ in self._waiting.values()]

    def release(self, id: int, edited: bytes | None = None) -> bool:
        """Lets it go on, as it was or as it was edited. False for one that is not held (any more).

        Raises `Fault` for what is no message, or of another kind; it is held on then. Its id stays what it was.
        """
        if edited is None:
            return self._decide(id, PASS)
        message = jsonrpc.parse(edited)
        known = self._waiting.get(id)
        if known is not None and known[0].message.kind is not message.kind:
            raise Fault(
                FaultKind.INVALID_REQUEST, f"It is a {known[0].message.kind.value}, and has to stay one"
            )
        return self._decide(id, Replace(message))

    def drop(self, id: int) -> bool:
        """A request is refused, anything else goes nowhere. False for one that is not held (any more)."""
        return self._decide(id, Reject(Fault(FaultKind.REFUSED_BY_RULE, reason="dropped_by_hand")))

    def _decide(self, id: int, verdict: Verdict) -> bool:
        known = self._waiting.get(id)
        if known is None or known[1].done():
            return False
        known[1].set_result(verdict)
        return True
