"""A command as a server: one child per legacy session, or one for all of them, and one for all modern requests.

`shared` is for servers that keep nothing per session. Sessions that ask for the same version and declare the same
capabilities then have one child: it is initialized by the first of them, and its answer is the answer to all.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import msgspec

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Answer, Forwarded
from shadowcat.core.session import promise_of
from shadowcat.core.statistics import UpstreamStatistics
from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream import duties
from shadowcat.upstream.channel import Channel, ChannelLimits, StdioCounters
from shadowcat.upstream.command import Command
from shadowcat.upstream.link import ConduitLink
from shadowcat.upstream.process import ENDED, HURRY
from shadowcat.upstream.starter import Starter, StartLimits
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import LATEST_LEGACY, LEGACY_VERSIONS

log = logging.getLogger("shadowcat.upstream")

StdioLink = ConduitLink[Channel]

_CODE_SAYS = 0.5
"""How long after its output an exit code is waited for, in seconds."""


@dataclass(frozen=True, slots=True)
class StdioLimits:
    processes: int = 1_000
    shared_processes: int = 16
    """Kinds of sessions, by version and capabilities, that each share one."""
    initialize_s: float = 30.0
    channel: ChannelLimits = field(default_factory=ChannelLimits)
    start: StartLimits = field(default_factory=StartLimits)


class StdioUpstream:
    def __init__(
        self,
        name: str,
        command: Command,
        *,
        shared: bool = False,
        spares: int = 0,
        limits: StdioLimits | None = None,
    ) -> None:
        """`spares` children are kept running for the sessions to come; not where sessions share one."""
        self.name = name
        self.counters = StdioCounters()
        self._command = command
        self._limits = limits or StdioLimits()
        self._shared = shared
        self._wanted_spares = 0 if shared else spares
        self._tasks = Tasks(f"stdio {name}")
        self._channels: dict[Channel, Starter] = {}
        self._spares: list[Channel] = []
        self._opening: set[Channel] = set()
        """Whoever waits for their first answer says how they ended."""
        self._starting = 0
        self._places: dict[tuple[str, bytes], _Place] = {}
        self._modern = _Place()
        # Apart: a legacy server may end at the first modern request, which says nothing about its sessions.
        self._legacy_starter = Starter(name, self._limits.start)
        self._modern_starter = Starter(name, self._limits.start)
        self._closed = False

    def statistics(self) -> UpstreamStatistics:
        counters = self.counters
        return UpstreamStatistics(
            processes=len(self._channels),
            processes_started=counters.started,
            processes_crashed=counters.crashed,
            is_left_alone=self._legacy_starter.is_waiting or self._modern_starter.is_waiting,
            messages_dropped=counters.dropped_messages,
            lines_of_garbage=counters.garbage_lines,
            reader_stalls=counters.stalls,
        )

    @property
    def processes(self) -> int:
        return len(self._channels)

    # Legacy.

    async def open(self, initialize: Message) -> tuple[StdioLink, Message]:
        if self._shared:
            return await self._open_shared(initialize)
        link, answer = await self._legacy_starter.run(lambda: self._open_own(initialize))
        self._refill()
        return link, answer

    async def _open_own(self, initialize: Message) -> tuple[StdioLink, Message]:
        while self._spares:
            spare = self._spares.pop()
            if spare.is_gone:
                continue
            try:
                return await self._opened(spare, initialize)
            except Fault as fault:
                # That it ended while it waited is perhaps heard of only now, and says nothing about the next one.
                if fault.reason != ENDED:
                    raise
        return await self._opened(await self._start(self._legacy_starter), initialize)

    async def _opened(self, channel: Channel, initialize: Message) -> tuple[StdioLink, Message]:
        link = StdioLink(channel, self.retire)
        return link, await self._initialized(link, channel, initialize)

    async def _open_shared(self, initialize: Message) -> tuple[StdioLink, Message]:
        place = self._place(initialize)
        async with place.lock:
            if place.channel is not None and not place.channel.is_gone and place.answer is not None:
                return StdioLink(place.channel), place.answer.with_id(initialize.id)
            return await self._legacy_starter.run(lambda: self._open_place(place, initialize))

    async def _open_place(self, place: _Place, initialize: Message) -> tuple[StdioLink, Message]:
        channel = await self._start(self._legacy_starter)
        link = StdioLink(channel)
        answer = await self._initialized(link, channel, initialize)
        place.channel, place.answer = channel, answer if answer.kind is Kind.RESULT else None
        return link, answer

    def _place(self, initialize: Message) -> _Place:
        kind = _kind_of(initialize)
        place = self._places.get(kind)
        if place is None:
            if len(self._places) >= self._limits.shared_processes:
                self._clear_a_place()
            place = self._places[kind] = _Place()
        return place

    def _clear_a_place(self) -> None:
        for kind, place in self._places.items():
            if not place.lock.locked() and (place.channel is None or not place.channel.has_parties):
                del self._places[kind]
                if place.channel is not None:
                    self.retire(place.channel)
                return
        raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_processes")

    async def _initialized(self, link: StdioLink, channel: Channel, initialize: Message) -> Message:
        """The answer to the handshake. A child that gives none, or a refusal, is not kept."""
        self._opening.add(channel)
        try:
            answer = await self._handshake(link, channel, initialize)
            if answer.kind is Kind.RESULT:
                promise_of(answer)
        except BaseException:
            self.retire(channel)
            raise
        finally:
            self._opening.discard(channel)
        if answer.kind is not Kind.RESULT:
            self.retire(channel)
        return answer

    async def _handshake(self, link: StdioLink, channel: Channel, initialize: Message) -> Message:
        wait_s = self._limits.initialize_s
        try:
            async with asyncio.timeout(wait_s):
                answer = await link.exchange(initialize)
        except TimeoutError:
            told = f"The upstream's command did not answer initialize within {wait_s:.0f} s"
            reason = "command_did_not_answer"
        except Fault:
            if not await channel.process.exits_within(_CODE_SAYS) and not channel.is_gone:
                raise
            told = f"The upstream's command ended before it answered initialize ({channel.process.ending()})"
            reason = ENDED
        else:
            # Nothing else can be on its stream: what a child says meanwhile waits on the standalone one.
            assert answer.whole is not None
            return answer.whole
        # Nobody has begun to use it: another upstream may serve as well.
        raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, told, reason=reason) from _LastWords(channel)

    def attach(self, upstream_id: str | None, version: str) -> StdioLink:
        """The child of a session opened earlier is gone with the process that ran it."""
        return StdioLink(None)

    # Modern.

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        channel = await self._modern_channel()
        await duties.check(channel, request, forwarded)
        try:
            call = await channel.call(request)
        except Fault as fault:
            if fault.reason != ENDED:
                raise
            # It ended since it was last heard of, and nothing was sent.
            call = await (await self._modern_channel()).call(request)
        answer = await call.answer()
        if answer.whole is not None:
            answer.status = duties.status_of(channel, request, answer.whole)
        return answer

    async def _modern_channel(self) -> Channel:
        place = self._modern
        if place.channel is None or place.channel.is_gone:
            async with place.lock:
                if place.channel is None or place.channel.is_gone:
                    place.channel = await self._modern_starter.run(lambda: self._start(self._modern_starter))
        return place.channel

    # Children.

    async def _start(self, starter: Starter) -> Channel:
        limits = self._limits
        if self._closed:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, reason="client_closed")
        if len(self._channels) + self._starting >= limits.processes:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_processes")
        self._starting += 1
        try:
            channel = await Channel.start(
                self._command, self.name, limits.channel, self.counters, self._on_gone
            )
        finally:
            self._starting -= 1
        if self._closed:
            await channel.stop(HURRY)
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, reason="client_closed")
        self._channels[channel] = starter
        return channel

    def _on_gone(self, channel: Channel) -> None:
        level = logging.DEBUG if channel in self._opening else logging.WARNING
        self._tasks.spawn(self._bury(channel, level), f"bury {channel.process.pid}")

    async def _bury(self, channel: Channel, level: int) -> None:
        """A child that ended by itself: says how, and ends what it left behind."""
        process = channel.process
        age_s = asyncio.get_running_loop().time() - process.started_at
        self.counters.crashed += 1
        self._channels[channel].ended(age_s)
        if channel in self._spares:
            self._spares.remove(channel)
        await process.exits_within(_CODE_SAYS)
        log.log(
            level,
            "upstream %s: process %d ended (%s); %s",
            self.name,
            process.pid,
            process.ending(),
            _LastWords(channel),
        )
        await self._stop(channel)

    def retire(self, channel: Channel) -> None:
        """Ends a child that nobody needs any more; that is not waited for."""
        self._tasks.spawn(self._stop(channel), f"stop {channel.process.pid}")

    async def _stop(self, channel: Channel) -> None:
        try:
            await channel.stop()
        finally:
            self._channels.pop(channel, None)

    def _refill(self) -> None:
        for _ in range(self._wanted_spares - len(self._spares) - self._starting):
            self._tasks.spawn(self._add_spare(), "spare")

    async def _add_spare(self) -> None:
        try:
            spare = await self._start(self._legacy_starter)
        except Fault as fault:
            log.info("upstream %s: no spare process: %s", self.name, fault.reason)
            return
        if self._closed or len(self._spares) >= self._wanted_spares:
            self.retire(spare)
        else:
            self._spares.append(spare)

    async def aclose(self) -> None:
        """Ends all children, together and in a hurry."""
        self._closed = True
        self._spares.clear()
        if self._channels:
            await asyncio.gather(*(channel.stop(HURRY) for channel in tuple(self._channels)))
        self._channels.clear()
        await self._tasks.aclose()


@dataclass(slots=True)
class _Place:
    """Where a child that several use is found, or is being started."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    channel: Channel | None = None
    answer: Message | None = None
    """Its answer to the handshake."""


class _Asked(msgspec.Struct):
    version: str = msgspec.field(name="protocolVersion", default=LATEST_LEGACY)
    capabilities: dict[str, object] = {}


def _kind_of(initialize: Message) -> tuple[str, bytes]:
    """What two sessions must have in common to share a child."""
    try:
        asked = msgspec.json.decode(initialize.raw_params, type=_Asked)
    except msgspec.MsgspecError as error:
        raise Fault(FaultKind.INVALID_PARAMS, "initialize names no version") from error
    # To any other version a server answers with its newest.
    version = asked.version if asked.version in LEGACY_VERSIONS else LATEST_LEGACY
    return version, msgspec.json.encode(asked.capabilities, order="deterministic")


class _LastWords(Exception):
    """For the log, not for the client: what a child said on stderr."""

    def __init__(self, channel: Channel) -> None:
        tail = channel.process.stderr_tail
        super().__init__(f"last on stderr: {tail}" if tail else "nothing on stderr")
