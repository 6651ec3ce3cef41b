"""Reads a stream for one client connection."""

from __future__ import annotations

import asyncio
from typing import Protocol

from shadowcat.aio import STEP_S
from shadowcat.core.exchange import NO_EVENTS, Piece

HELD_BACK_S = 5.0
"""How long a connection waits for events that must be in the store first."""


class Readable(Protocol):
    """The stream, as its reader sees it."""

    @property
    def primed(self) -> bool: ...

    @property
    def is_held_back(self) -> bool:
        """Whether something is handed out as soon as the store has it."""
        ...

    def take(self, reader: Reader) -> Piece | None:
        """What the reader has not seen, piece by piece; None when it has seen everything there will be for it."""
        ...

    def take_whole(self, reader: Reader) -> Piece | None: ...

    def arrival(self) -> asyncio.Future[None]:
        """Done when there may be something to take. For the reader alone, who may cancel it."""
        ...

    def hurry(self) -> None:
        """What is held back is waited for."""
        ...

    def unknown_outcome(self) -> Piece | None:
        """What ends it for a client that cannot come back; None where that one waits for nothing in particular."""
        ...

    def detach(self, reader: Reader) -> None: ...


class Reader:
    """Iterate it for its events, piece by piece."""

    __slots__ = ("_has_id", "_patience_s", "_stream", "farewell", "replayed_to", "unprimed")

    def __init__(self, stream: Readable, after: int | None, replayed_to: int) -> None:
        self._stream = stream
        self._has_id = after is not None
        """The client, to come back by."""
        self.unprimed = stream.primed
        self.farewell: Piece | None = None
        """What is said at last: an id to come back by, or the error of a client that has none."""
        self.replayed_to = replayed_to
        self._patience_s = HELD_BACK_S

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Piece:
        stream = self._stream
        while True:
            piece = stream.take(self)
            if piece is NO_EVENTS:
                if not stream.is_held_back:
                    await stream.arrival()
                    continue
                if await self._let_go():
                    continue
                if not self._has_id:
                    # Both official clients take a stream that ends without an id for a call that goes on.
                    self.farewell = stream.unknown_outcome()
            elif piece is not None:
                self._has_id = True
                self._patience_s = HELD_BACK_S
                return piece
            stream.detach(self)
            if self.farewell is not None:
                farewell, self.farewell = self.farewell, None
                return farewell
            raise StopAsyncIteration

    async def _let_go(self) -> bool:
        """Waits for the store; False for one that takes too long: the client may come back for it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._stream.hurry()
        await asyncio.wait((self._stream.arrival(),), timeout=min(self._patience_s, STEP_S))
        # A process that was stopped meanwhile has not waited: see `wait_awake`.
        self._patience_s -= min(loop.time() - began, STEP_S)
        return self._patience_s > 0

    @property
    def is_held_back(self) -> bool:
        return self._stream.is_held_back

    def arrival(self) -> asyncio.Future[None]:
        """Done when what is held back may be there; for who does not iterate."""
        self._stream.hurry()
        return self._stream.arrival()

    def whole(self) -> Piece | None:
        """All that there will ever be, where it is here and no more than a piece; nothing is left to be read then."""
        return self._stream.take_whole(self)

    async def aclose(self) -> None:
        self._stream.detach(self)
