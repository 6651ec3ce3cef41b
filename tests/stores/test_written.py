"""Random lives of sessions beside a store that fails at random: what it has in the end is what the sessions have.

The store fails before a change is made and after it, and now and then it loses all that it had. Whatever a stream let
go of, whatever came and went meanwhile, the writer brings it up to date.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from shadowcat.aio import Tasks
from shadowcat.core import kept
from shadowcat.core.ledger import Refusal, SessionChange
from shadowcat.core.ports import SessionStore
from shadowcat.core.stream import Budget, LogLimits
from shadowcat.proxy.book import STANDALONE, StreamBook
from shadowcat.proxy.ledger import SessionLedger
from shadowcat.proxy.news import News
from shadowcat.proxy.streams import Stream
from shadowcat.proxy.writer import Durability, StoreWriter
from shadowcat.stores.memory import MemoryStore
from shadowcat.stores.redis import RedisStore
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.wire import jsonrpc
from tests.rig.redis_server import RedisServer, redis_server
from tests.size import sized

PROMPT = Durability(gather_s=0.0, patience_s=5.0, retry_first_s=0.001, retry_cap_s=0.002)
pytestmark = pytest.mark.timeout(sized(120, 1200))

Forget = Callable[[], Awaitable[object]]


class Unsure:
    """A store that fails one time in four, half of these after it has done what it was asked."""

    def __init__(self, store: SessionStore, forget: Forget, draws: random.Random) -> None:
        self._store = store
        self._forget = forget
        self._draws = draws
        self.is_sure = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        draw = 1.0 if self.is_sure else self._draws.random()
        if draw < 0.12:
            raise OSError("before")
        if draw < 0.15:
            await self._forget()
        refused = await self._store.write(changes)
        if draw < 0.27:
            raise OSError("after")
        return refused


class Life:
    """A session: its streams, and a record that counts."""

    def __init__(self, number: int, writer: StoreWriter, draws: random.Random) -> None:
        self.id = f"{number:032x}"
        self.record = 0
        self.now = 0.0
        self._draws = draws
        self.lost: list[Refusal] = []
        self.ledger = SessionLedger(
            writer,
            self.id,
            node="node",
            fence=0,
            describe=lambda: b"%d" % self.record,
            streams=lambda: self.book.all,
            on_refused=self.lost.append,
        )
        self.book = StreamBook(
            f"e{number}",
            LogLimits(bytes=20_000),
            Budget(1 << 30),
            self.ledger,
            lambda: self.now,
            primed=True,
            is_current=lambda _: True,
        )
        self.said = 0

    def step(self) -> None:
        live = [stream for stream in self.book.all if not stream.log.closed]
        match self._draws.randrange(9):
            case 0:
                self.record += 1
                self.ledger.record_changed()
            case 1:
                self.book.new(self._draws.randrange(1_000))
            case 2 | 3 | 4 if live:
                self._say(self._draws.choice(live))
            case 5 if live:
                self._hear(self._draws.choice(live))
            case 6 if live:
                stream = self._draws.choice(live)
                stream.mark(b"u%d" % self.said)
            case 7 if calls := [stream for stream in live if stream.id != STANDALONE]:
                self.book.finish(self._draws.choice(calls))
            case 8:
                self.now += 400.0
                self.book.prune()
            case _:
                self.book.standalone.append(self._note(), own=True)

    def _note(self) -> jsonrpc.Message:
        self.said += 1
        return jsonrpc.notification("n", {"n": self.said, "pad": "x" * self._draws.randrange(600)})

    def _say(self, stream: Stream) -> None:
        for _ in range(self._draws.randrange(1, 6)):
            if not stream.log.must_wait:
                stream.append(self._note(), own=self._draws.random() < 0.2)

    def _hear(self, stream: Stream) -> None:
        reader = stream.read()
        stream.take(reader)
        if self._draws.random() < 0.5:
            stream.detach(reader)

    def content(self) -> dict[int, Any]:
        return {
            stream.id: (
                kept.encode(stream.kept()),
                stream.log.first_seq,
                kept.encode_events(
                    stream.log.data_after(stream.log.first_seq - 1),
                    stream.log.first_seq,
                    stream.log.questions,
                ),
            )
            for stream in self.book.all
        }


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[SessionStore, Forget]]:
    """A store, and how it loses everything."""
    if request.param == "memory":
        memory = MemoryStore()

        async def clear() -> None:
            memory._sessions.clear()  # pyright: ignore[reportPrivateUsage]

        yield memory, clear
    elif request.param == "sqlite":
        path = tmp_path / "sessions.db"
        sqlite = SqliteStore(path)

        async def delete() -> None:
            for file in path.parent.glob("sessions.db*"):
                file.unlink()

        yield sqlite, delete
        await sqlite.aclose()
    else:
        async with redis_server(tmp_path) as server:
            redis = RedisStore(server.url)
            yield redis, _flushing(server)
            await redis.aclose()


def _flushing(server: RedisServer) -> Forget:
    return lambda: server.ask("FLUSHALL")


@pytest.mark.parametrize("run", range(sized(3, 40)))
async def test_the_store_has_in_the_end_what_the_sessions_have(
    place: tuple[SessionStore, Forget], run: int
) -> None:
    draws = random.Random(f"lives {run}")
    store, forget = place
    unsure: Any = Unsure(store, forget, draws)
    tasks = Tasks("test")
    writer = StoreWriter(unsure, tasks, PROMPT, News())
    writing = tasks.spawn(writer.run(), "write")
    lives = [Life(number, writer, draws) for number in range(5)]
    for life in lives:
        life.ledger.record_changed()
    for _ in range(sized(600, 3_000)):
        draws.choice(lives).step()
        if draws.random() < 0.2:
            await asyncio.sleep(0)
        if draws.random() < 0.01:
            await writer.flush(0.05)
    unsure.is_sure = True
    for life in lives:
        # Who has nothing to say does not hear that the store has lost everything.
        life.ledger.record_changed()
    assert await writer.flush(60.0)
    for life in lives:
        assert life.lost == []
        found = await store.read(life.id)
        assert found is not None
        assert found.record == b"%d" % life.record
        assert {s.id: (s.head, s.first_seq, list(s.events)) for s in found.streams} == life.content()
    assert writer.failures > 0
    writing.cancel()
    await tasks.aclose()
