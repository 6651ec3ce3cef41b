"""A conduit made of one child's stdin and stdout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shadowcat.errors import answer_too_large
from shadowcat.upstream.call import Call
from shadowcat.upstream.command import Command
from shadowcat.upstream.conduit import Conduit, ConduitLimits
from shadowcat.upstream.process import ENDED, Listener, Patience, Process
from shadowcat.upstream.readers import ConduitCounters
from shadowcat.upstream.tools import ListedTools
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.lines import OversizedLine


@dataclass(frozen=True, slots=True)
class ChannelLimits(ConduitLimits):
    patience: Patience = field(default_factory=Patience)


@dataclass(slots=True)
class StdioCounters(ConduitCounters):
    """Of all children of one upstream."""

    started: int = 0
    crashed: int = 0


class Channel(Conduit):
    ended = ENDED
    told = "The upstream's command ended; the outcome is unknown"

    def __init__(
        self,
        name: str,
        limits: ChannelLimits,
        counters: StdioCounters,
        on_gone: Callable[[Channel], object],
    ) -> None:
        """Use `start`."""
        super().__init__(name, limits, counters)
        self.tools = ListedTools(name)
        self.process: Process
        self._on_gone = on_gone

    @classmethod
    async def start(
        cls,
        command: Command,
        name: str,
        limits: ChannelLimits,
        counters: StdioCounters,
        on_gone: Callable[[Channel], object],
    ) -> Channel:
        """Starts a child. `on_gone` hears if it ends by itself."""
        channel = cls(name, limits, counters, on_gone)
        listener = Listener(channel._heard, channel._ended)
        channel.process = Process(command, name, listener, limits.patience)
        await channel.process.start()
        counters.started += 1
        return channel

    @property
    def is_gone(self) -> bool:
        return self.process.is_over or not self.process.takes_input

    async def stop(self, patience: Patience | None = None) -> None:
        if not self.process.is_over:
            self._over()
        try:
            await self.process.stop(patience)
        finally:
            await self._settle()

    async def _carry(self, message: Message, call: Call | None = None) -> None:
        await self.process.write(message.line())

    def _carry_nowait(self, message: Message) -> bool:
        return self.process.write_nowait(message.line())

    def _pause_reading(self) -> None:
        self.process.pause_reading()

    def _resume_reading(self) -> None:
        self.process.resume_reading()

    def _heard(self, lines: Sequence[bytes | OversizedLine]) -> None:
        for line in lines:
            if isinstance(line, OversizedLine):
                self._garbage(line.start, line.told, answer_too_large(line.limit), is_cut=True)
            else:
                self._hear(line)

    def _ended(self) -> None:
        self._over()
        self._on_gone(self)
