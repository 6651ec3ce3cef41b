"""The requests and whole answers of one turn of the event loop leave together at its end.

A peer that waits is woken by what is sent to it, and on a machine with cores to spare that costs the sender more than
the sending does. Sent in between, every message finds its peer asleep again; sent together, nearly all find it at work.
Measured with 32 connections: three quarters of the CPU time of a call, for what is read and answered meanwhile.

Where each of the last turns had only one, the next one has nobody to leave with. An answer leaves at once then. A
request does not: a loop may send what it is given only after it has looked at all that is readable, and what is read
before the request has left is no answer to it.
"""

from __future__ import annotations

import asyncio

_MAX_BYTES = 16 * 1024
"""What is longer costs more than a wake-up, and would have to be held."""
_LONELY = 8
"""With 32 connections one turn after a single message had a single one again if that left at once, and calls took
longer."""
_MAX_WAITING = 64
"""So many save all there is to be saved; those who were read first need not wait for more."""


class Turn:
    """What the connections of one server, or of one client, have to send."""

    __slots__ = ("_may_hurry", "_single", "waiting")

    def __init__(self, *, may_hurry: bool = False) -> None:
        self._may_hurry = may_hurry
        self._single = 0
        """How many turns in a row had a single message."""
        self.waiting: list[Sender] = []

    @property
    def is_lonely(self) -> bool:
        return self._may_hurry and self._single >= _LONELY

    def end(self) -> None:
        waiting, self.waiting = self.waiting, []
        self._single = self._single + 1 if len(waiting) == 1 else 0
        for sender in waiting:
            sender.flush()


class Sender:
    """One connection's way out. It holds one message at the most, and its order is that of the calls."""

    __slots__ = ("_loop", "_transport", "_turn", "held")

    def __init__(self, transport: asyncio.Transport, turn: Turn, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._turn = turn
        self._loop = loop
        self.held = b""
        """What was written last, where nothing of it has left."""

    def write(self, data: bytes) -> None:
        if self.held or len(data) > _MAX_BYTES:
            self.write_now(data)
            return
        self.held = data
        turn = self._turn
        waiting = turn.waiting
        waiting.append(self)
        if len(waiting) == 1:
            self._loop.call_soon(turn.end)
            if turn.is_lonely:
                self.flush()
        elif len(waiting) >= _MAX_WAITING:
            turn.end()

    def write_now(self, data: bytes) -> None:
        """With what is held, and for what should not arrive together with what follows.

        The TypeScript SDK's client loses progress that it reads in one piece with the answer.
        """
        held = self.held
        if held:
            self.held = b""
            data = held + data
        self._transport.write(data)

    def write_two(self, first: bytes, second: bytes) -> None:
        """At once, and without a copy."""
        self.flush()
        self._transport.writelines((first, second))

    def flush(self) -> None:
        held = self.held
        if held:
            self.held = b""
            transport = self._transport
            if not transport.is_closing():
                transport.write(held)
