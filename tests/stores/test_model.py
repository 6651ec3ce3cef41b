"""Random use of a store, beside the memory store, which must hold the same and refuse the same."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shadowcat.clock import ManualClock
from shadowcat.core.ledger import SessionChange, StoredSession, StreamChange
from shadowcat.core.ports import SessionStore
from shadowcat.stores.memory import MemoryStore
from shadowcat.stores.sqlite import SqliteStore

T = TypeVar("T")

IDS = st.sampled_from("abc")
NODES = st.sampled_from(["one", "two"])
STREAMS = st.integers(1, 4)


class ComparedToMemory(RuleBasedStateMachine):
    """Two handles on one store, used in turns."""

    def open(self) -> SessionStore:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.model = MemoryStore(self.clock)
        self.stores = [self.open(), self.open()]
        self.fences: dict[str, int] = {}
        self.written = 0

    def teardown(self) -> None:
        for store in self.stores:
            self.run(store.aclose())
        self.runner.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @property
    def store(self) -> SessionStore:
        self.stores.reverse()
        return self.stores[0]

    def stored(self, session_id: str) -> StoredSession | None:
        return self.run(self.model.read(session_id))

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        batch = [self.change(data) for _ in range(data.draw(st.integers(1, 3)))]
        # What becomes of a second change depends on the first, so only its last refusal is told.
        assert self.run(self.store.write(batch)) == self.run(self.model.write(batch))

    @rule(data=st.data())
    def write_it_twice(self, data: st.DataObject) -> None:
        change = self.change(data)._replace(is_whole=False, ends=False)
        for _ in range(2):
            assert self.run(self.store.write([change])) == self.run(self.model.write([change]))

    def change(self, data: st.DataObject) -> SessionChange:
        session_id = data.draw(IDS)
        held = self.stored(session_id)
        fence = max(1, (held.fence if held else 1) + data.draw(st.sampled_from([0, 0, 0, 0, 0, -1, 1])))
        return SessionChange(
            session_id,
            fence,
            is_whole=data.draw(st.integers(0, 9)) == 0 if held else data.draw(st.integers(0, 4)) != 0,
            record=data.draw(st.none() | st.binary(max_size=3)),
            streams=[
                self.stream(held, id, data) for id in data.draw(st.lists(STREAMS, max_size=3, unique=True))
            ],
            dropped=data.draw(st.lists(STREAMS, max_size=1)) if data.draw(st.booleans()) else (),
            releases=data.draw(st.integers(0, 9)) == 0,
            ends=data.draw(st.integers(0, 19)) == 0,
            node=data.draw(st.just("") | NODES),
        )

    def stream(self, held: StoredSession | None, id: int, data: st.DataObject) -> StreamChange:
        found = [stream for stream in held.streams if stream.id == id] if held else []
        first = found[0].first_seq if found else 1
        held_events = list(found[0].events) if found else []
        # Mostly what follows; sometimes also some that are held, or what does not fit.
        again = data.draw(st.integers(0, len(held_events)))
        gap = data.draw(st.sampled_from([0, 0, 0, 0, 3])) if not again else 0
        next_seq = first + len(held_events) - again + gap
        events = held_events[len(held_events) - again :] + self.events(data)
        first_seq = data.draw(
            st.sampled_from([1, first, next_seq]) | st.integers(first, next_seq + len(events) + 2)
        )
        return StreamChange(id, data.draw(st.binary(max_size=3)), first_seq, next_seq, events)

    def events(self, data: st.DataObject) -> list[bytes]:
        count = data.draw(st.integers(0, 3) | st.integers(0, 80))
        self.written += count
        return [b"%d" % number for number in range(self.written - count, self.written)]

    @rule(session_id=IDS, node=NODES)
    def claim(self, session_id: str, node: str) -> None:
        assert plain(self.run(self.store.claim(session_id, node))) == plain(
            self.run(self.model.claim(session_id, node))
        )

    @rule(session_id=IDS, seldom=st.integers(0, 9))
    def remove(self, session_id: str, seldom: int) -> None:
        if seldom == 0:
            assert self.run(self.store.remove(session_id)) == self.run(self.model.remove(session_id))

    @rule(seconds=st.sampled_from([1, 60, 3_600]), idle_s=st.sampled_from([30, 60, 1_800]))
    def expire(self, seconds: int, idle_s: float) -> None:
        self.clock.advance(seconds)
        self.run(self.store.expire(idle_s))
        self.run(self.model.expire(idle_s))

    @rule(jump=st.sampled_from([7_200, -7_200]))
    def jump(self, jump: float) -> None:
        self.clock.jump_wall(jump)

    @rule()
    def reopen(self) -> None:
        self.run(self.stores.pop().aclose())
        self.stores.append(self.open())

    @invariant()
    def they_hold_the_same(self) -> None:
        store = self.store
        for session_id in "abc":
            assert plain(self.run(store.read(session_id))) == plain(self.stored(session_id))
        assert list(self.run(store.sessions("", 10))) == list(self.run(self.model.sessions("", 10)))


def plain(found: object) -> object:
    """Comparable, whatever sequences it is made of."""
    if isinstance(found, StoredSession):
        return (*found[:4], [(*stream[:3], list(stream.events)) for stream in found.streams])
    return found


class SqliteComparedToMemory(ComparedToMemory):
    def open(self) -> SessionStore:
        if not hasattr(self, "directory"):
            self.directory = tempfile.TemporaryDirectory()
        return SqliteStore(Path(self.directory.name) / "sessions.db", self.clock)

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


TestSqliteStore = SqliteComparedToMemory.TestCase
TestSqliteStore.settings = settings(max_examples=60, stateful_step_count=30)
