"""One legacy session over a conduit, to a child process or an event stream: implements `core.ports.Link`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from shadowcat.core.exchange import Answer, MessageStream
from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream.call import Party
from shadowcat.upstream.conduit import Conduit
from shadowcat.upstream.inbox import Inbox
from shadowcat.wire.jsonrpc import Message

C = TypeVar("C", bound=Conduit)


class ConduitLink(Generic[C]):
    def __init__(
        self,
        conduit: C | None,
        on_end: Callable[[C], object] | None = None,
        upstream_id: str | None = None,
    ) -> None:
        """Without a conduit, the session is lost from the start. `on_end` ends one that is the session's own."""
        self.upstream_id = upstream_id
        self._conduit = conduit
        self._on_end = on_end
        self._party: Party | None = conduit.join() if conduit is not None else None

    def _require(self) -> tuple[C, Party]:
        if self._conduit is None or self._party is None or self._conduit.is_gone:
            raise _lost()
        return self._conduit, self._party

    async def exchange(self, request: Message) -> Answer:
        conduit, party = self._require()
        try:
            call = await conduit.call(request, party)
            return await call.answer()
        except Fault as fault:
            if _is_lost(conduit, fault):
                raise _lost() from fault
            raise

    async def send(self, message: Message) -> None:
        conduit, party = self._require()
        try:
            await conduit.send(message, party)
        except Fault as fault:
            if _is_lost(conduit, fault):
                raise _lost() from fault
            raise

    async def listen(self) -> MessageStream | None:
        _, party = self._require()
        return _Standalone(party.standalone)

    def resume(self, cursor: bytes, *, standalone: bool) -> MessageStream:
        # Nothing that comes over a conduit has a cursor.
        raise _lost()

    async def detach(self) -> None:
        # No other process can take it over: there the session is opened again.
        await self.end()

    async def end(self) -> None:
        conduit, party, self._conduit = self._conduit, self._party, None
        if conduit is None or party is None:
            return
        conduit.leave(party)
        if self._on_end is not None:
            self._on_end(conduit)


class _Standalone:
    """A reader of a session's standalone messages; what it has not read waits for the next one."""

    cursor = None

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __aiter__(self) -> _Standalone:
        return self

    async def __anext__(self) -> list[Message]:
        return await anext(self._inbox)

    async def aclose(self) -> None:
        # Nobody is waited for while nobody reads.
        self._inbox.is_slow = True


def _is_lost(conduit: Conduit, fault: Fault) -> bool:
    return conduit.is_gone and not fault.sent


def _lost() -> Fault:
    """Nothing was sent: a session whose conduit is gone is opened again, and the request sent over the new one."""
    return Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="upstream_session_lost")
