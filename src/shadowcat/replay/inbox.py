"""What a server asks and says of its own accord, kept until the tape gets there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shadowcat.errors import Fault, FaultKind
from shadowcat.replay.recorded import Recording
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId

MAX_WAITING = 10_000


class Inbox:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._waiting: list[Message] = []
        self._ids: dict[int, RequestId] = {}
        self._changed = asyncio.Event()
        self.last: Message = jsonrpc.notification("none")
        """What was found last."""

    def put(self, message: Message) -> None:
        """Raises `Fault` where the server says more and more that the tape does not come to."""
        if len(self._waiting) >= MAX_WAITING:
            told = f"{MAX_WAITING} messages have come that the tape has not come to"
            raise Fault(FaultKind.OVER_CAPACITY, told)
        self._waiting.append(message)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def left(self) -> Sequence[Message]:
        """What the tape has not come to."""
        return tuple(self._waiting)

    def id_of(self, seq: int) -> RequestId | None:
        """By what the question at that place of the tape goes today."""
        return self._ids.pop(seq, None)

    async def come(self, seq: int, expected: Message) -> None:
        """Until one comes with that method; if there are several, the one that is the same."""
        while not (found := [message for message in self._waiting if message.method == expected.method]):
            await self._changed.wait()
        same = (message for message in found if self._is_same(expected, message))
        self.last = next(same, found[0])
        self._waiting.remove(self.last)
        if self.last.id is not None:
            self._ids[seq] = self.last.id

    def _is_same(self, expected: Message, message: Message) -> bool:
        return not any(
            self._recording.likeness.differences(expected, self._recording.without_secrets(message))
        )
