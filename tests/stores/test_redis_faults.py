"""Redis goes away, stands still, fills up and forgets: nothing acknowledged is lost, nothing hangs or is mixed up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from shadowcat.clock import ManualClock
from shadowcat.core.ledger import Held, Refusal, SessionChange, StoredSession, StreamChange
from shadowcat.stores.redis import RedisFailed, RedisLimits, RedisStore
from tests.faults.wire import Direction, Way, Wire, wire_to
from tests.rig.redis_server import RedisServer, redis_server
from tests.rig.wait import soon, until

SHORT = RedisLimits(connections=3, connect_s=0.3, reply_s=0.3, call_s=1.0, last_backoff_s=0.05, close_s=0.3)


def opening(session_id: str = "a", *events: bytes, record: bytes = b"record") -> SessionChange:
    stream = StreamChange(1, b"head", 1, 1, events)
    return SessionChange(session_id, 1, is_whole=True, record=record, streams=(stream,), node="one")


def adding(next_seq: int, *events: bytes, session_id: str = "a", first_seq: int = 1) -> SessionChange:
    stream = StreamChange(1, b"%d" % (next_seq + len(events)), first_seq, next_seq, events)
    return SessionChange(session_id, 1, streams=(stream,))


async def insist(store: RedisStore, change: SessionChange) -> None:
    """As a writer does: again until it is known to be there."""
    async with soon():
        while True:
            try:
                assert not await store.write([change])
                return
            except RedisFailed:
                await asyncio.sleep(0.005)


async def events_of(store: RedisStore, session_id: str = "a") -> list[bytes]:
    found = await store.read(session_id)
    assert found is not None
    return list(found.streams[0].events)


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis.url, SHORT)
    yield store
    await store.aclose()


@pytest.fixture
async def wire(redis: RedisServer) -> AsyncIterator[Wire]:
    async with wire_to(redis.port) as wire:
        yield wire


# It goes away.


async def test_nothing_acknowledged_is_lost_when_redis_is_killed(tmp_path: Path) -> None:
    async with redis_server(tmp_path, appendonly="yes", appendfsync="always") as server:
        store = RedisStore(server.url, SHORT)
        written = {"a": 0, "b": 0, "c": 0}
        is_over = False

        async def write(session_id: str) -> None:
            await insist(store, opening(session_id))
            while not is_over:
                next_seq = written[session_id] + 1
                events = [b"%d" % number for number in range(next_seq, next_seq + random.randint(1, 9))]
                await insist(store, adding(next_seq, *events, session_id=session_id))
                written[session_id] += len(events)

        async with asyncio.TaskGroup() as tasks:
            for session_id in written:
                tasks.create_task(write(session_id))
            for _ in range(4):
                before = dict(written)
                await until(lambda before=before: all(written[name] > before[name] + 20 for name in before))
                await server.restart()
            is_over = True
        for session_id, count in written.items():
            assert await events_of(store, session_id) == [b"%d" % n for n in range(1, count + 1)]
        await store.aclose()


async def test_calls_fail_soon_while_redis_is_away(redis: RedisServer, store: RedisStore) -> None:
    await store.write([opening()])
    await redis.kill()
    async with soon(10 * SHORT.call_s):
        for _ in range(20):
            with pytest.raises(RedisFailed, match=rf"^redis at 127.0.0.1:{redis.port}: "):
                await store.write([adding(1, b"1")])
            with pytest.raises(RedisFailed):
                await store.claim("a", "one")
    await redis.start()
    await insist(store, opening())
    assert await events_of(store) == []


# It stands still.


async def test_calls_fail_soon_while_redis_stands_still(redis: RedisServer, store: RedisStore) -> None:
    await store.write([opening()])
    redis.stop()
    async with soon(10 * SHORT.call_s):
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(store.read("a") for _ in range(20)), store.write([adding(1, b"1")]), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} == {RedisFailed}
    redis.go_on()
    await insist(store, adding(1, b"1", b"2"))
    assert await events_of(store) == [b"1", b"2"]


async def test_closing_ends_while_redis_stands_still(redis: RedisServer, wire: Wire) -> None:
    store = RedisStore(f"redis://127.0.0.1:{wire.port}", RedisLimits(close_s=0.1))
    await store.write([opening()])
    redis.stop()
    calls = [asyncio.create_task(store.read("a")) for _ in range(20)]
    await until(lambda: wire.accepted == RedisLimits().connections)
    async with soon(RedisLimits().reply_s):
        await store.aclose()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(outcome).partition(": ")[2] for outcome in outcomes} == {"the store is closed"}
    redis.go_on()
    await until(lambda: not wire.passages)
    await store.aclose()


async def test_an_overtaken_change_does_not_undo_the_later_one(redis: RedisServer, wire: Wire) -> None:
    """Its bytes lay in a socket, its caller tried again on another connection, and then Redis read on."""
    store = RedisStore(f"redis://127.0.0.1:{wire.port}", SHORT)
    await store.write([opening("a", b"1")])
    slow = wire.passages[0].plan.up
    slow.way = Way.STOPPED
    old = SessionChange("a", 1, record=b"old", streams=(StreamChange(2, b"old", 1, 1, (b"x",)),))
    with pytest.raises(RedisFailed):
        await store.write([old])
    await insist(store, SessionChange("a", 1, record=b"new", dropped=(2,)))
    found = await store.read("a")
    await let_through(redis, wire, slow)
    assert await store.read("a") == found
    assert found is not None
    assert found.record == b"new"
    await store.aclose()


async def test_an_overtaken_claim_does_not_fence_off_the_later_one(redis: RedisServer, wire: Wire) -> None:
    store = RedisStore(f"redis://127.0.0.1:{wire.port}", SHORT)
    await store.write([opening("a", b"1")])
    slow = wire.passages[0].plan.up
    slow.way = Way.STOPPED
    with pytest.raises(RedisFailed):
        await store.claim("a", "one")
    await insist_on_claim(store)
    await let_through(redis, wire, slow)
    assert not await store.write([SessionChange("a", 2, record=b"mine")])
    await store.aclose()


async def insist_on_claim(store: RedisStore) -> StoredSession:
    async with soon():
        while True:
            try:
                found = await store.claim("a", "one")
            except RedisFailed:
                await asyncio.sleep(0.005)
            else:
                assert isinstance(found, StoredSession)
                return found


async def let_through(redis: RedisServer, wire: Wire, slow: Direction) -> None:
    """Opens the way for what was held back, and returns when Redis has run it."""
    before = await scripts_run(redis)
    slow.way = Way.OPEN
    wire.changed.tell()
    async with soon():
        while await scripts_run(redis) == before:
            pass


async def scripts_run(redis: RedisServer) -> int:
    found = await redis.ask("INFO", "commandstats")
    return found["cmdstat_evalsha"]["calls"]


# Many at once, and some that give up.


async def test_many_calls_over_few_connections(wire: Wire) -> None:
    store = RedisStore(f"redis://127.0.0.1:{wire.port}", RedisLimits(connections=4))
    ids = [f"session-{number}" for number in range(300)]
    await asyncio.gather(*(store.write([opening(name, record=name.encode())]) for name in ids))
    found = await asyncio.gather(*(store.read(name) for name in ids))
    assert [session.record.decode() for session in found if session is not None] == ids
    assert wire.accepted <= 4
    await store.aclose()


async def test_who_gives_up_does_not_leave_its_reply_to_another(wire: Wire) -> None:
    store = RedisStore(f"redis://127.0.0.1:{wire.port}", RedisLimits(connections=3))
    ids = [f"session-{number}" for number in range(30)]
    await store.write([opening(name, name.encode(), record=name.encode()) for name in ids])
    given_up = 0

    async def ask() -> None:
        nonlocal given_up
        for _ in range(60):
            name = random.choice(ids)
            reading = asyncio.create_task(store.read(name))
            if random.random() < 0.5:
                for _ in range(random.randrange(12)):
                    await asyncio.sleep(0)
                reading.cancel()
            try:
                found = await reading
            except asyncio.CancelledError:
                given_up += 1
                continue
            assert found is not None
            assert (found.session_id, found.record) == (name, name.encode())
            assert list(found.streams[0].events) == [name.encode()]

    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(ask())
    assert given_up > 100
    assert wire.accepted <= 3
    await store.aclose()


async def test_of_two_claims_at_once_one_wins(redis: RedisServer) -> None:
    nodes = {name: RedisStore(redis.url) for name in ("one", "two", "three")}
    for name, store in nodes.items():
        await store.renew(name, 600.0)
    for number in range(20):
        session_id = f"{number}"
        await nodes["one"].write([opening(session_id), SessionChange(session_id, 1, releases=True)])
        found = dict(
            zip(nodes, await asyncio.gather(*(s.claim(session_id, n) for n, s in nodes.items())), strict=True)
        )
        (winner,) = (name for name, claimed in found.items() if isinstance(claimed, StoredSession))
        assert {name: claimed for name, claimed in found.items() if name != winner} == {
            name: Held(winner) for name in nodes if name != winner
        }
    for store in nodes.values():
        await store.aclose()


# It fills up.


async def test_a_full_redis_says_so_and_works_again(redis: RedisServer, store: RedisStore) -> None:
    await store.write([opening("a", b"1", b"2"), opening("b")])
    await store.renew("one", 600.0)
    await redis.ask("CONFIG", "SET", "maxmemory", "1")
    for change in (adding(3, b"3"), opening("c"), SessionChange("a", 1, record=b"newer")):
        with pytest.raises(RedisFailed, match=r"it is full \(maxmemory\)"):
            await store.write([change])
    assert await events_of(store) == [b"1", b"2"]
    await store.check()
    # What a takeover hangs on, and what makes room, goes on.
    await store.renew("one", 600.0)
    assert await store.claim("a", "two") == Held("one")
    assert not await store.write([adding(3, first_seq=2), SessionChange("b", 1, ends=True)])
    assert await events_of(store) == [b"2"]
    assert await store.write([opening("b")]) == {"b": Refusal.ENDED}
    claimed = await store.claim("a", "one")
    assert isinstance(claimed, StoredSession)
    assert claimed.fence == 2
    await store.expire(3600.0)
    await redis.ask("CONFIG", "SET", "maxmemory", "0")
    change = adding(3, b"3")._replace(fence=2)
    assert not await store.write([change])
    assert await events_of(store) == [b"2", b"3"]


# It forgets.


async def test_after_flushall_everything_is_written_anew(redis: RedisServer, store: RedisStore) -> None:
    await store.write([opening("a", b"1")])
    await redis.ask("FLUSHALL")
    assert await store.write([adding(2, b"2")]) == {"a": Refusal.MISSING}
    assert not await store.write([opening("a", b"1", b"2")])
    assert await events_of(store) == [b"1", b"2"]
    assert [found.node for found in await store.sessions("", 10)] == ["one"]


async def test_scripts_are_loaded_again(redis: RedisServer, store: RedisStore) -> None:
    await store.write([opening()])
    for number in range(1, 4):
        await redis.ask("SCRIPT", "FLUSH")
        assert not await store.write([adding(2 * number - 1, b"x"), adding(2 * number, b"y")])
    assert await events_of(store) == [b"x", b"y"] * 3


async def test_evicted_events_are_missed(redis: RedisServer, store: RedisStore) -> None:
    """With another policy than noeviction a full Redis throws away whichever keys it likes."""
    await store.write([opening("a", b"1", b"2")])
    await redis.ask("DEL", "shadowcat:session:{a}:1")
    found = await store.read("a")
    assert found is not None
    assert found.streams == [(1, b"head", 3, [])]
    assert await store.write([adding(3, b"3")]) == {"a": Refusal.MISSING}
    assert not await store.write([opening("a", b"1", b"2", b"3")])
    assert await events_of(store) == [b"1", b"2", b"3"]


async def test_an_index_that_names_what_is_gone_is_put_right(redis: RedisServer, store: RedisStore) -> None:
    await store.write([opening(name) for name in "abcd"])
    await redis.ask("DEL", "shadowcat:session:{a}", "shadowcat:session:{c}")
    assert [found.session_id for found in await store.sessions("", 2)] == ["b", "d"]
    assert await redis.ask("ZCARD", "shadowcat:sessions") == 2


async def test_whatever_is_left_behind_goes_by_itself(redis: RedisServer, store: RedisStore) -> None:
    await store.write([opening("a", b"1"), opening("b"), SessionChange("b", 1, ends=True)])
    await store.renew("one", 600.0)
    await store.expire(3600.0)
    keys = sorted(await redis.ask("KEYS", "*"))
    assert keys == [
        b"shadowcat:clock",
        b"shadowcat:ended:{b}",
        b"shadowcat:lease:one",
        b"shadowcat:session:{a}",
        b"shadowcat:session:{a}:1",
        b"shadowcat:sessions",
    ]
    for key in keys:
        assert await redis.ask("PTTL", key) > 0


# Time.


async def test_idle_time_is_counted_across_nodes_that_come_and_go(redis: RedisServer) -> None:
    clock = ManualClock()
    first = RedisStore(redis.url, clock=clock)
    await first.write([opening()])
    clock.advance(50)
    await first.expire(100.0)
    await first.aclose()
    later = ManualClock(monotonic=7.0)
    async with aclosing(RedisStore(redis.url, clock=later)) as second:
        await second.expire(100.0)
        later.advance(49)
        await second.expire(100.0)
        assert await second.read("a") is not None
        later.jump_wall(7_200)
        await second.expire(100.0)
        assert await second.read("a") is not None
        later.advance(1)
        await second.expire(100.0)
        assert await second.read("a") is None


async def test_many_sessions_expire(redis: RedisServer) -> None:
    clock = ManualClock()
    async with aclosing(RedisStore(redis.url, clock=clock)) as store:
        await store.write([opening(f"{number}", b"1") for number in range(1_234)])
        clock.advance(10)
        await store.write([adding(2, b"2", session_id="777")])
        await store.expire(5.0)
        assert [found.session_id for found in await store.sessions("", 10)] == ["777"]
        assert await redis.ask("DBSIZE") == 4
