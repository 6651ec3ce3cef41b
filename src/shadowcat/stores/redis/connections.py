"""Connections to one Redis: few, shared in turn, each used until its replies have been read.

redis-py's connections are used, its pools and clients are not: a pool raises when it is full, and replies have gone
to the wrong caller when a command was cancelled between its two halves. Here a command belongs to a task of its own,
which nobody cancels: who gives up leaves it to read its reply.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from shadowcat.aio import Tasks
from shadowcat.core.backoff import Backoff
from shadowcat.stores.redis.address import Address

Argument = str | bytes | int
Command = tuple[Argument, ...]
Reply = Any


CLOSED = "it closed the connection"
SILENT = "no answer in time"


class RedisFailed(Exception):
    """Redis could not be asked, or refused; says in one line why. Asking again later may help."""


@dataclass(frozen=True, slots=True)
class RedisLimits:
    connections: int = 8
    connect_s: float = 1.5
    reply_s: float = 3.0
    """For sending, and then for each reply."""
    call_s: float = 4.5
    """For a call as its caller sees it, with the wait for a connection: a failure is known within 5 s."""
    health_s: float = 30.0
    """A connection unused for that long is asked for a PONG first."""
    first_backoff_s: float = 0.05
    last_backoff_s: float = 1.0
    """How long at most calls fail at once after Redis was found away; then the next one tries again."""
    close_s: float = 2.0


class _Connection(Protocol):
    """What is used of redis-py's."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def can_read(self) -> bool: ...
    def pack_commands(self, commands: Iterable[Command]) -> list[bytes]: ...
    async def send_packed_command(self, command: Iterable[bytes]) -> None: ...
    async def read_response(self) -> Reply: ...


class Connections:
    """Opens nothing before the first call."""

    def __init__(self, address: Address, limits: RedisLimits) -> None:
        self._address = address
        self._limits = limits
        self._tasks = Tasks("redis")
        self._slots = asyncio.Semaphore(limits.connections)
        self._unused: list[_Connection] = []
        """Open or not; the one used last is used next. One in a caller's hands is in no list."""
        self._backoff = Backoff(limits.first_backoff_s, limits.last_backoff_s)
        self._away_until = 0.0
        self._away_because = ""
        self._is_closed = False

    async def call(self, commands: Sequence[Command]) -> list[Reply]:
        """The replies in order, asked for together. An error reply stands in its place as a `ResponseError`."""
        self._refuse_when_closed()
        if asyncio.get_running_loop().time() < self._away_until:
            raise self._failed(self._away_because)
        try:
            async with asyncio.timeout(self._limits.call_s):
                await self._slots.acquire()
                # From here on to the end of the task the slot is the task's.
                return await asyncio.shield(self._tasks.spawn(self._exchange(commands), "call", awaited=True))
        except TimeoutError:
            raise self._failed(f"no answer within {self._limits.call_s:g} s") from None
        except RedisError as error:
            raise self._failed(explain(error)) from error

    async def aclose(self) -> None:
        """Lets what is under way end, as long as that takes no longer than it may."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            async with asyncio.timeout(self._limits.close_s):
                for _ in range(self._limits.connections):
                    await self._slots.acquire()
        except TimeoutError:
            # What is cancelled here drops its connection, and there is nobody left to be given another's reply.
            await self._tasks.aclose(self._limits.close_s)
        await self._drop_unused()

    async def _exchange(self, commands: Sequence[Command]) -> list[Reply]:
        connection = self._unused.pop() if self._unused else self._new()
        try:
            self._refuse_when_closed()
            # Longer than anybody waits for it: a Redis that answers drop by drop must not keep the connection.
            async with asyncio.timeout(2 * self._limits.call_s):
                with _only_redis():
                    replies = await self._ask(connection, commands)
        except BaseException as error:
            # The rest of its replies may still come: this connection is done for.
            await connection.disconnect(nowait=True)
            if isinstance(error, RedisError):
                await self._found_away(error)
            if isinstance(error, asyncio.CancelledError):
                # Only closing cancels, and whoever waits for the reply was not cancelled.
                self._refuse_when_closed()
            raise
        else:
            self._backoff.succeeded()
            self._away_until = 0.0
            return replies
        finally:
            # A closed one is kept too: with TLS it holds the certificates, which take long to read.
            self._unused.append(connection)
            self._slots.release()

    async def _ask(self, connection: _Connection, commands: Sequence[Command]) -> list[Reply]:
        if connection.is_connected and await connection.can_read():
            # Nothing was asked: it is the end of the connection, which Redis has closed meanwhile.
            await connection.disconnect(nowait=True)
        await connection.connect()
        await connection.send_packed_command(connection.pack_commands(commands))
        replies = [await _reply(connection) for _ in commands]
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            # A primary no longer: its name may lead to the new one, if it is asked for again.
            raise ReadOnlyError("it is a read-only replica")
        return replies

    def _new(self) -> _Connection:
        made = self._address.connection_class(
            **self._address.arguments,
            protocol=3,
            socket_connect_timeout=self._limits.connect_s,
            socket_timeout=self._limits.reply_s,
            health_check_interval=self._limits.health_s,
            # Retrying is the caller's, who knows what became of its change.
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
        )
        return cast(_Connection, made)

    async def _found_away(self, error: RedisError) -> None:
        """Calls fail at once for a moment, and the other connections, most likely as dead, are opened anew."""
        now = asyncio.get_running_loop().time()
        if now >= self._away_until:
            self._away_until = now + self._backoff.next_s(random.random())
            self._away_because = explain(error)
        await self._drop_unused()

    async def _drop_unused(self) -> None:
        # None of them may be taken meanwhile.
        dropped, self._unused = self._unused, []
        for connection in dropped:
            await connection.disconnect(nowait=True)
        self._unused += dropped

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise self._failed("the store is closed")

    def _failed(self, why: str) -> RedisFailed:
        return RedisFailed(f"redis at {self._address.where}: {why}")


@contextmanager
def _only_redis() -> Generator[None]:
    """redis-py is not ready for every answer of what is not Redis."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidResponse("not Redis's protocol") from error


async def _reply(connection: _Connection) -> Reply:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def explain(error: RedisError) -> str:
    """In a few words what is wrong and, where that is likely enough, what to do. Holds no secret."""
    text = " ".join(str(error).split())
    if (tls := _tls_error(error)) is not None:
        return f"TLS failed: {tls}"
    match error:
        case _ if "closed by server" in text or "reset by peer" in text:
            return CLOSED
        case _ if "Authentication required" in text or "HELLO must be called" in text:
            return "it wants a password: redis://:PASSWORD@HOST"
        case AuthenticationError():
            return "it refuses the user name or password in its URL"
        case _ if isinstance(error, InvalidResponse) or "Bad response from PING" in text:
            return "what answers there is not Redis"
        case RedisTimeout():
            return SILENT
        case OutOfMemoryError():
            return "it is full (maxmemory)"
        case ReadOnlyError():
            return "it is a read-only replica; its URL has to name the primary"
        case ResponseError() if "unknown command" in text and "HELLO" in text:
            return "it is too old: Redis 6.2 or newer is needed"
        case _:
            return text[:200]


def _tls_error(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message or error.reason
        if isinstance(error, ssl.SSLError):
            return (error.reason or "bad handshake").lower().replace("_", " ")
        error = error.__cause__ or error.__context__
    return None
