"""The store's port on Redis: each change is one script, and a batch of them is sent and read in one go.

Time is the nodes' own and not Redis's, whose clock may be set: a clock is kept in Redis that every node moves on by
what its monotonic clock says has passed since it first looked. Redis's own expiry clears away what nobody comes for
any more; it decides about leases, and about nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.ledger import Held, Refusal, SessionChange, SessionSummary, StoredSession
from shadowcat.errors import StoreUnusable
from shadowcat.stores.redis import scripts
from shadowcat.stores.redis.address import Address
from shadowcat.stores.redis.connections import (
    CLOSED,
    SILENT,
    Argument,
    Connections,
    RedisFailed,
    RedisLimits,
    Reply,
    explain,
)
from shadowcat.stores.redis.packing import pack_change, unpack_session, unpack_summary
from shadowcat.stores.redis.scripts import Script

OLDEST = (6, 2)
FORMAT = 1
"""Of what is stored; a store that a newer version wrote is left alone."""

KEEP_MS = 7 * 24 * 3600 * 1000
"""After so long without a write Redis clears a session away: long after it has expired, were anybody left to see it."""
ENDED_MS = 3600 * 1000
"""How long it is remembered that a session is over."""
PIECE_BYTES = 1 << 20
"""A batch goes out in pieces of about so much, so that on a slow link each has its time."""
EXPIRE_AT_ONCE = 500
"""How many sessions a script looks at while everybody else waits for it."""

Call = tuple[Sequence[str], Sequence[Argument]]
"""A script's keys and arguments."""


class RedisStore:
    def __init__(self, url: str, limits: RedisLimits | None = None, clock: Clock | None = None) -> None:
        address = Address.parse(url)
        self._where = address.where
        self._is_tls = address.is_tls
        self._connections = Connections(address, limits or RedisLimits())
        self._clock = clock or SystemClock()
        self._name = secrets.token_hex(8)
        self._turns = count(1)
        self._ahead_ms: int | None = None
        """How far the common clock is ahead of ours; not known before the first look."""
        self._prefix = f"{address.namespace}:session:"
        self._ended = f"{address.namespace}:ended:"
        self._removed = f"{address.namespace}:removed:"
        self._leases = f"{address.namespace}:lease:"
        self._index = f"{address.namespace}:sessions"
        self._common_clock = f"{address.namespace}:clock"
        self._format = f"{address.namespace}:format"

    @property
    def is_shared(self) -> bool:
        return True

    async def check(self) -> None:
        try:
            hello, *replies = await self._connections.call(
                [("HELLO",), ("SET", self._format, FORMAT, "NX"), ("GET", self._format)]
            )
        except RedisFailed as failure:
            raise StoreUnusable(f"{failure}{_hint(str(failure), self._is_tls)}") from failure
        why_not = _why_unfit(hello) or _why_foreign(replies)
        if why_not is not None:
            raise StoreUnusable(f"redis at {self._where}: {why_not}")

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        refused: dict[str, Refusal] = {}
        for piece in _pieces(changes):
            at = await self._now()
            replies = await self._run(scripts.WRITE, [self._write_call(*packed, at) for packed in piece])
            for (session_id, *_), reply in zip(piece, replies, strict=True):
                if reply is not None:
                    refused[session_id] = Refusal(reply.decode())
        return refused

    async def claim(self, session_id: str, node: str) -> StoredSession | Held | None:
        keys = (self._key(session_id), self._common_clock)
        (reply,) = await self._run(
            scripts.CLAIM, [(keys, (await self._now(), self._turn(), KEEP_MS, node, self._leases))]
        )
        if isinstance(reply, bytes):
            return Held(reply.decode())
        return None if reply is None else unpack_session(session_id, reply)

    async def read(self, session_id: str) -> StoredSession | None:
        (reply,) = await self._run(scripts.READ, [((self._key(session_id),), ())])
        return None if reply is None else unpack_session(session_id, reply)

    async def sessions(self, after: str, limit: int) -> Sequence[SessionSummary]:
        (reply,) = await self._run(scripts.LIST, [((self._index,), (after, self._prefix, limit))])
        return [unpack_summary(summary) for summary in reply]

    async def remove(self, session_id: str) -> bool:
        arguments = (session_id, await self._now(), ENDED_MS, self._removed)
        (reply,) = await self._run(scripts.REMOVE, [(self._keys(session_id), arguments)])
        return reply == 1

    async def removed(self, node: str) -> Collection[str]:
        (reply,) = await self._run(scripts.REMOVED, [((self._removed + node,), ())])
        return [session_id.decode() for session_id in reply]

    async def renew(self, node: str, lease_s: float) -> None:
        keys = (self._leases + node, self._common_clock)
        await self._run(scripts.RENEW, [(keys, (await self._now(), KEEP_MS, _ms(lease_s)))])

    async def expire(self, idle_s: float) -> None:
        keys = (self._index, self._common_clock)
        after: bytes | None = b""
        while after is not None:
            arguments = (await self._now(), KEEP_MS, _ms(idle_s), self._prefix, after, EXPIRE_AT_ONCE)
            (after,) = await self._run(scripts.EXPIRE, [(keys, arguments)])

    async def aclose(self) -> None:
        await self._connections.aclose()

    def _key(self, session_id: str) -> str:
        return f"{self._prefix}{{{session_id}}}"

    def _keys(self, session_id: str) -> Sequence[str]:
        return self._key(session_id), f"{self._ended}{{{session_id}}}", self._index, self._common_clock

    def _turn(self) -> str:
        return f"{self._name} {next(self._turns)}"

    def _write_call(self, session_id: str, numbers: bytes, data: bytes, at: int) -> Call:
        return self._keys(session_id), (at, self._turn(), KEEP_MS, ENDED_MS, numbers, data)

    async def _now(self) -> int:
        if self._ahead_ms is None:
            (reply,) = await self._ask([("GET", self._common_clock)])
            self._ahead_ms = int(reply or 0) - _ms(self._clock.monotonic())
        return _ms(self._clock.monotonic()) + self._ahead_ms

    async def _run(self, script: Script, calls: Sequence[Call]) -> list[Reply]:
        """The script once for each call, in order."""
        commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = await self._connections.call(commands)
        unknown = next((n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)), None)
        if unknown is not None:
            # Redis forgets scripts when it starts. From the first that was not run on they are all run, perhaps
            # again, which no script minds; so the changes of a session keep their order.
            again = await self._ask([("SCRIPT", "LOAD", script.source), *commands[unknown:]])
            replies[unknown:] = again[1:]
        return self._good(replies)

    async def _ask(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        return self._good(await self._connections.call(commands))

    def _good(self, replies: list[Reply]) -> list[Reply]:
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise RedisFailed(f"redis at {self._where}: {explain(reply)}") from reply
        return replies


def _pieces(changes: Sequence[SessionChange]) -> Iterator[list[tuple[str, bytes, bytes]]]:
    piece: list[tuple[str, bytes, bytes]] = []
    size = 0
    for change in changes:
        numbers, data = pack_change(change)
        piece.append((change.session_id, numbers, data))
        size += len(numbers) + len(data)
        if size >= PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _hint(failure: str, is_tls: bool) -> str:
    """One side speaks TLS and the other does not: neither is told, one hangs up and the other waits."""
    if failure.endswith(CLOSED) and not is_tls:
        return "; if it wants TLS, its URL begins with rediss://"
    if failure.endswith(SILENT) and is_tls:
        return "; if it does not speak TLS, its URL begins with redis://"
    return ""


def _why_unfit(hello: Reply) -> str | None:
    if isinstance(hello, ResponseError):
        return explain(hello)
    try:
        version, mode, role = hello[b"version"].decode(), hello[b"mode"], hello[b"role"]
    except (KeyError, TypeError):
        return "what answers there is not Redis"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return f"{version} is too old: Redis 6.2 or newer is needed"
    if mode == b"cluster":
        return "it belongs to a Redis Cluster, which is not supported; a single primary is needed"
    if mode == b"sentinel":
        return "it is a Sentinel; its URL has to name the primary itself"
    if role != b"master":
        return "it is a read-only replica; its URL has to name the primary"
    return None


def _why_foreign(replies: Sequence[Reply]) -> str | None:
    for reply in replies:
        # One that is full today may have room tomorrow.
        if isinstance(reply, ResponseError) and not isinstance(reply, OutOfMemoryError):
            return explain(reply)
    held = replies[-1]
    if held is not None and held != b"%d" % FORMAT:
        return "a newer version of Shadowcat has written there; this one would not understand it"
    return None
