"""One client and one server, line by line, unchanged or as interceptors want the lines.

Without interceptors a line is only glanced at, so that it is known who waits for what when the server ends; it goes
on as the bytes it was. Nothing but messages reaches the client: what else a server prints is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from shadowcat.aio import Tasks
from shadowcat.core.waiting import Waiting
from shadowcat.errors import Fault, FaultKind, answer_too_large
from shadowcat.proxy.way import End, Line, Rest, Way
from shadowcat.wire.glance import cancelled_id, early_id, glance, tells_or_asks
from shadowcat.wire.lines import OversizedLine
from shadowcat.wire.mcp import Method

if TYPE_CHECKING:
    # Not loaded before something needs it: this starts with every window of an editor.
    from shadowcat.proxy.interception import Interception, Pending, Sent
    from shadowcat.wire.jsonrpc import RequestId

log = logging.getLogger("shadowcat.stdio")

DROPS_LOGGED = 20
ASIDE_AFTER_S = 1.0
"""Servers on stdio may count on the order of what they read. A second of that is kept up for interceptors that wait;
beyond it is a person who holds a message, and looks at what else there is meanwhile."""
MAX_ASIDE = 1_000


_Key = tuple[bool, type, "RequestId | None"]
"""Of a request: which way it goes, and its id with its JSON type."""


class Passage:
    def __init__(
        self,
        client: End,
        server: End,
        interception: Interception | None = None,
        explained: Callable[[Fault], Awaitable[Fault]] | None = None,
    ) -> None:
        """`explained`: a fault of the server's with what is known of why it takes no more."""
        self._client = client
        self._explained = explained
        self._server = server
        self._interception = interception
        self._tasks = Tasks("passage")
        self._up = Way(client, self._deliver_up, self._tasks, "up")
        self._down = Way(server, self._deliver_down, self._tasks, "down")
        self._dropped = 0
        self._aside: dict[asyncio.Task[None], bool] = {}
        """What waits for interceptors, and whether it is on its way up."""
        self._undecided: dict[_Key, asyncio.Task[None]] = {}
        """The requests of that which they have not decided on."""
        if interception is not None:
            interception.withdraw = self._withdraw
        self.waiting: Waiting[Any] = Waiting() if interception is None else interception.waiting

    def from_client(self, lines: Iterable[Line]) -> None:
        self._up.take(lines)

    def from_server(self, lines: Iterable[Line]) -> None:
        self._down.take(lines)

    async def wait_sent(self) -> None:
        """Until the server has what the client said."""
        await self._up.wait_empty()
        while going_up := [deciding for deciding, is_up in self._aside.items() if is_up]:
            await asyncio.wait(going_up)

    async def server_ended(self, fault: Fault) -> None:
        """After its last line: who still waits is told."""
        await self._down.wait_empty()
        for id, request in self.waiting.close():
            await self._fail(id, request, fault)

    async def aclose(self) -> None:
        await self._tasks.aclose(1.0)

    # Towards the server.

    def _deliver_up(self, line: Line) -> Rest:
        if isinstance(line, OversizedLine):
            return self._refuse_long(line)
        if self._interception is not None:
            return self._intercept_up(line, self._interception)
        asked: list[RequestId] = []
        for seen in glance(line):
            if (id := seen.asks) is not None:
                asked.append(id)
            elif seen.method == Method.CANCELLED and (id := cancelled_id(line)) is not None:
                self.waiting.forget(id)
        try:
            for id in asked:
                self.waiting.ask(id, None)
        except Fault as fault:
            return self._refuse(asked, fault)
        return self._write_up(line + b"\n", asked)

    async def _intercept_up(self, line: bytes, interception: Interception) -> None:
        try:
            found = interception.take(line, is_up=True)
        except Fault as fault:
            # Nothing may pass that the interceptors could not read.
            await self._client.write(_error(_readable_id(line), fault))
        else:
            await self._hand_on(found)

    def _write_up(self, line: bytes, asked: Sequence[RequestId]) -> Rest:
        try:
            if self._server.write_nowait(line):
                return None
        except Fault as fault:
            return self._give_back(asked, fault)
        return self._write_up_later(line, asked)

    async def _write_up_later(self, line: bytes, asked: Sequence[RequestId]) -> None:
        try:
            await self._server.write(line)
        except Fault as fault:
            await self._give_back(asked, fault)

    async def _give_back(self, asked: Sequence[RequestId], fault: Fault) -> None:
        if self._explained is not None:
            fault = await self._explained(fault)
        # Unless the end of the server was told for them meanwhile.
        await self._refuse([id for id in asked if id in self.waiting], fault)

    async def _refuse(self, asked: Sequence[RequestId], fault: Fault) -> None:
        for id in asked:
            await self._fail(id, self.waiting.forget(id), fault)

    async def _fail(self, id: RequestId, request: Any, fault: Fault) -> None:
        if self._interception is not None and request is not None:
            self._interception.failed(request, fault)
        await self._client.write(_error(id, fault))

    async def _refuse_long(self, line: OversizedLine) -> None:
        told = f"a line of the client's is dropped: {line.told}"
        log.warning("%s: %s", told, _shown(line.start))
        id = early_id(line.start)
        if id is not None and b'"method"' in line.start:
            await self._refuse([id], Fault(FaultKind.BODY_TOO_LARGE))

    # Towards the client.

    def _deliver_down(self, line: Line) -> Rest:
        if isinstance(line, OversizedLine):
            return self._drop(line.start, line.told, answer_too_large(line.limit), is_cut=True)
        if self._interception is not None:
            return self._intercept_down(line, self._interception)
        found = glance(line)
        if not found:
            return self._drop(line, "no MCP message", _garbage())
        for seen in found:
            if (id := seen.answers) is not None:
                self.waiting.answered(id)
        return self._write_down(line + b"\n")

    async def _intercept_down(self, line: bytes, interception: Interception) -> None:
        try:
            found = interception.take(line, is_up=False)
        except Fault as fault:
            await self._drop(line, str(fault), _garbage())
        else:
            await self._hand_on(found)

    def _write_down(self, line: bytes) -> Rest:
        return None if self._client.write_nowait(line) else self._client.write(line)

    async def _drop(self, line: bytes, why: str, fault: Fault, *, is_cut: bool = False) -> None:
        self._dropped += 1
        if self._dropped <= DROPS_LOGGED:
            last = "; no more of them are told" if self._dropped == DROPS_LOGGED else ""
            log.warning("a line on the command's stdout is dropped (%s): %s%s", why, _shown(line), last)
        id = self._answered_by(line, is_cut)
        if id is not None:
            await self._refuse([id], fault)

    def _answered_by(self, garbage: bytes, is_cut: bool) -> RequestId | None:
        """The request that a broken line was most likely the answer to: without it, that one would wait in vain."""
        if tells_or_asks(garbage) or garbage[:1] != b"{":
            return None
        id = early_id(garbage)
        if id is None:
            # Some servers write the id last.
            id = self.waiting.only() if is_cut else _readable_id(garbage)
        return id if id is not None and id in self.waiting else None

    # Either way.

    async def _hand_on(self, found: Sequence[Sent | Pending]) -> None:
        """In order, but for a request that takes long: what comes after that goes past it."""
        for one in found:
            if isinstance(one, tuple):
                await self._send((one,))
                continue
            deciding = self._set_aside(one)
            is_full = len(self._aside) >= MAX_ASIDE
            await asyncio.wait(
                (deciding,), timeout=ASIDE_AFTER_S if one.may_be_passed and not is_full else None
            )

    def _set_aside(self, pending: Pending) -> asyncio.Task[None]:
        id = pending.message.id
        key = pending.is_up, type(id), id
        deciding = self._tasks.spawn(self._decide(pending, key), "decide")
        self._aside[deciding] = pending.is_up
        if pending.message.is_request:
            self._undecided[key] = deciding

        def over(_: object) -> None:
            del self._aside[deciding]
            if self._undecided.get(key) is deciding:
                del self._undecided[key]
            pending.let_go()

        deciding.add_done_callback(over)
        return deciding

    async def _decide(self, pending: Pending, key: _Key) -> None:
        sent = await pending.sent()
        # From here on it is known to who gets it, and so is its cancellation.
        self._undecided.pop(key, None)
        await self._send(sent)

    def _withdraw(self, is_up: bool, id: RequestId) -> bool:
        deciding = self._undecided.get((is_up, type(id), id))
        return deciding is not None and deciding.cancel()

    async def _send(self, sent: Sequence[Sent]) -> None:
        for is_up, message in sent:
            if not is_up:
                rest = self._write_down(message.line())
            else:
                asked = [message.id] if message.is_request and message.id is not None else []
                rest = self._write_up(message.line(), asked)
            if rest is not None:
                await rest


def _garbage() -> Fault:
    return Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_sent_garbage", sent=True)


def _shown(line: bytes) -> str:
    from shadowcat.core.redact import shown

    return shown(line, 200)


def _error(id: RequestId | None, fault: Fault) -> bytes:
    from shadowcat.wire import jsonrpc

    return jsonrpc.error(id, fault.error()).line()


def _readable_id(line: bytes) -> RequestId | None:
    from shadowcat.wire import jsonrpc

    return jsonrpc.readable_id(line)
