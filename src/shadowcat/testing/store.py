"""The tests every session store must pass: those that come with the library, and yours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise

import pytest

from shadowcat.core.ledger import Held, Refusal, SessionChange, StoredSession, StoredStream, StreamChange
from shadowcat.core.ports import SessionStore

DEADLINE_S = 20.0
ANY_BYTES = bytes(range(256))


def opening(
    session_id: str = "a", *streams: StreamChange, record: bytes = b"new", fence: int = 1
) -> SessionChange:
    """The change that a session begins with."""
    return SessionChange(session_id, fence, is_whole=True, record=record, streams=streams, node="one")


def adding(*streams: StreamChange, session_id: str = "a", fence: int = 1) -> SessionChange:
    return SessionChange(session_id, fence, streams=streams)


def stream(
    next_seq: int, *events: bytes, id: int = 1, head: bytes = b"head", first_seq: int = 1
) -> StreamChange:
    return StreamChange(id, head, first_seq, next_seq, events)


class StoreContract:
    """The tests of `core.ports.SessionStore`. A class of yours inherits them, and says how to open the store:

        class TestMyStore(StoreContract):
            @pytest.fixture
            def make_store(self, tmp_path):
                return lambda: MyStore(tmp_path / "sessions")

    `make_store` gives each test a function that opens the store: with nothing in it at first, and every time with the
    same content. The tests close what they opened. They run on asyncio with anyio's pytest plugin.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def make_store(self) -> Callable[[], SessionStore]:
        raise NotImplementedError("a fixture make_store has to say how the store is opened")

    @pytest.fixture
    async def store(self, make_store: Callable[[], SessionStore]) -> AsyncIterator[SessionStore]:
        store = make_store()
        yield store
        await store.aclose()

    async def pass_time(self, seconds: float) -> None:
        """Waits; override it where the store is given a clock that can be moved."""
        await asyncio.sleep(seconds)

    # What is held.

    async def test_an_empty_store_holds_nothing(self, store: SessionStore) -> None:
        await store.check()
        assert await store.read("a") is None
        assert await store.claim("a", "one") is None
        assert await store.remove("a") is False
        assert list(await store.sessions("", 10)) == []
        assert not await store.write([])
        await store.expire(0.0)

    async def test_a_session_is_held_as_it_was_written(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1", b"2"), stream(1, b"3", id=7, head=b"other")))
        assert await held(store) == StoredSession(
            "a",
            fence=1,
            record=b"new",
            last_stream=7,
            streams=(StoredStream(1, b"head", 1, (b"1", b"2")), StoredStream(7, b"other", 1, (b"3",))),
        )

    async def test_bytes_are_kept_as_they_are(self, store: SessionStore) -> None:
        change = stream(1, b"", ANY_BYTES, b"\r\n\0", head=ANY_BYTES)
        await write(store, opening("a", change, record=ANY_BYTES))
        found = await held(store)
        assert found.record == ANY_BYTES
        assert found.streams == (StoredStream(1, ANY_BYTES, 1, (b"", ANY_BYTES, b"\r\n\0")),)
        await write(store, opening("b", stream(1, head=b""), record=b""))
        assert (await held(store, "b")).streams == (StoredStream(1, b"", 1, ()),)

    async def test_ids_are_any_visible_ascii(self, store: SessionStore) -> None:
        """That is what an MCP session id may be."""
        ids = [
            "".join(map(chr, range(0x21, 0x7F))),
            "%",
            "_",
            "*",
            "A",
            "a",
            "a:b",
            "a:b:c",
            "0",
            "00",
            "x" * 128,
        ]
        await write(store, *(opening(session_id, record=session_id.encode()) for session_id in ids))
        for session_id in ids:
            assert (await held(store, session_id)).record == session_id.encode()
        assert [found.session_id for found in await store.sessions("", 100)] == sorted(ids)
        assert await store.remove("a")
        assert await store.read("a:b") is not None

    async def test_an_event_may_be_long(self, store: SessionStore) -> None:
        long = ANY_BYTES * 4096 * 4
        await write(store, opening("a", stream(1, long, b"short", long)))
        assert (await held(store)).streams[0].events == (long, b"short", long)

    async def test_reading_changes_nothing(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1")))
        found = await held(store)
        assert await held(store) == found
        await store.sessions("", 10)
        await write(store, adding(stream(2, b"2")))
        assert (await held(store)).streams[0].events == (b"1", b"2")

    # What a change does.

    async def test_events_are_added(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1)))
        await write(store, adding(stream(1, b"1")))
        await write(store, adding(stream(2, b"2", b"3")))
        await write(store, adding(stream(4)))
        assert (await held(store)).streams == (StoredStream(1, b"head", 1, (b"1", b"2", b"3")),)

    async def test_the_order_of_many_events_is_kept(self, store: SessionStore) -> None:
        events = [b"%d" % number for number in range(1, 1_201)]
        await write(store, opening("a"))
        for start, end in pairwise(range(0, 1_201, 300)):
            await write(store, adding(stream(start + 1, *events[start:end])))
        assert list((await held(store)).streams[0].events) == events

    async def test_a_change_that_comes_twice_is_made_once(self, store: SessionStore) -> None:
        """A writer that was cut off cannot tell what became of its change, so it writes it again, and what followed."""
        await write(store, opening("a", stream(1, b"1")))
        await write(store, adding(stream(2, b"2", b"3")))
        await write(store, adding(stream(2, b"2", b"3")))
        await write(store, adding(stream(2, b"2", b"3", b"4"), stream(1, b"x", id=2)))
        await write(store, adding(stream(1, b"1", b"2", b"3", b"4", b"5", first_seq=3)))
        await write(store, adding(stream(1, b"1", b"2", b"3", b"4", b"5", b"6", first_seq=3)))
        assert (await held(store)).streams == (
            StoredStream(1, b"head", 3, (b"3", b"4", b"5", b"6")),
            StoredStream(2, b"head", 1, (b"x",)),
        )

    async def test_the_head_and_the_record_are_replaced(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1"), stream(1, id=2, head=b"second")))
        await write(store, adding(stream(2, head=b"later")))
        await write(store, SessionChange("a", 1, record=b"newer"))
        found = await held(store)
        assert found.record == b"newer"
        assert found.streams == (StoredStream(1, b"later", 1, (b"1",)), StoredStream(2, b"second", 1, ()))

    @pytest.mark.parametrize(
        ("change", "first_seq", "events"),
        [
            pytest.param(stream(5, first_seq=3), 3, (b"3", b"4"), id="some"),
            pytest.param(stream(5, b"5", first_seq=3), 3, (b"3", b"4", b"5"), id="some-while-adding"),
            pytest.param(stream(5, b"5", first_seq=2), 3, (b"3", b"4", b"5"), id="what-is-gone-already"),
            pytest.param(stream(5, b"5", first_seq=5), 5, (b"5",), id="all"),
            pytest.param(stream(5, first_seq=5), 5, (), id="all-and-none-added"),
            pytest.param(stream(9, b"9", first_seq=9), 9, (b"9",), id="more-than-is-held"),
            pytest.param(stream(9, first_seq=9), 9, (), id="more-than-is-held-and-none-added"),
            pytest.param(stream(5, first_seq=9), 9, (), id="more-than-ever-was"),
            pytest.param(stream(4, b"4", b"5", b"6", first_seq=6), 6, (b"6",), id="some-of-what-is-added"),
            pytest.param(stream(8, b"8", first_seq=5), 8, (b"8",), id="with-a-gap-after-all-that-is-held"),
        ],
    )
    async def test_events_are_let_go_of(
        self, store: SessionStore, change: StreamChange, first_seq: int, events: Sequence[bytes]
    ) -> None:
        await write(store, opening("a", stream(1, b"1", b"2", b"3", b"4"), stream(1, b"x", id=2)))
        await write(store, adding(stream(5, first_seq=3)))
        await write(store, adding(change))
        assert (await held(store)).streams == (
            StoredStream(1, b"head", first_seq, events),
            StoredStream(2, b"head", 1, (b"x",)),
        )

    async def test_a_stream_goes_on_after_all_its_events_were_let_go_of(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1", b"2")))
        await write(store, adding(stream(3, first_seq=3)))
        await write(store, adding(stream(3, b"3", first_seq=3)))
        assert (await held(store)).streams == (StoredStream(1, b"head", 3, (b"3",)),)

    async def test_a_stream_may_begin_late(self, store: SessionStore) -> None:
        """Its first events had come and gone before anything was written."""
        await write(store, opening("a", stream(41, b"41", first_seq=41)))
        await write(store, adding(stream(7, first_seq=7, id=2)))
        assert (await held(store)).streams == (
            StoredStream(1, b"head", 41, (b"41",)),
            StoredStream(2, b"head", 7, ()),
        )

    async def test_streams_are_dropped_and_the_last_is_remembered(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1"), stream(1, b"2", id=2), stream(1, b"3", id=12)))
        await write(store, SessionChange("a", 1, dropped=(2, 12, 99)))
        found = await held(store)
        assert found.streams == (StoredStream(1, b"head", 1, (b"1",)),)
        assert found.last_stream == 12
        await write(store, SessionChange("a", 1, dropped=(1,)))
        assert (await held(store))[3:] == (12, ())
        await write(store, opening("a", stream(1, id=3)))
        assert (await held(store)).last_stream == 12

    async def test_a_whole_change_replaces_everything(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1", b"2"), stream(1, b"3", id=2)))
        await write(store, opening("a", stream(5, b"5", first_seq=5), stream(1, b"4", id=3), record=b"whole"))
        found = await held(store)
        assert found.record == b"whole"
        assert found.streams == (StoredStream(1, b"head", 5, (b"5",)), StoredStream(3, b"head", 1, (b"4",)))

    async def test_a_batch_changes_many_sessions(self, store: SessionStore) -> None:
        ids = [f"session-{number:03}" for number in range(200)]
        await write(store, *(opening(session_id, stream(1, session_id.encode())) for session_id in ids))
        await write(store, *(adding(stream(2, b"2"), session_id=session_id) for session_id in ids))
        for session_id in ids:
            found = await held(store, session_id)
            assert found.streams[0].events == (session_id.encode(), b"2")

    async def test_changes_of_one_session_are_made_in_their_order(self, store: SessionStore) -> None:
        await write(
            store,
            opening("a", stream(1, b"1")),
            SessionChange("a", 1, record=b"second", streams=(stream(2, b"2"),)),
            SessionChange("a", 1, record=b"last", streams=(stream(3, b"3", first_seq=2), stream(1, id=4))),
            SessionChange("a", 1, dropped=(4,)),
        )
        found = await held(store)
        assert found[2:] == (b"last", 4, (StoredStream(1, b"head", 2, (b"2", b"3")),))

    # What is refused.

    async def test_what_is_not_held_cannot_be_changed(self, store: SessionStore) -> None:
        refused = await store.write([adding(stream(1, b"1")), opening("b", stream(1, b"1"))])
        assert refused == {"a": Refusal.MISSING}
        assert await store.read("a") is None
        assert (await held(store, "b")).streams[0].events == (b"1",)
        await write(store, opening("a", stream(1, b"1"), fence=4))
        assert (await held(store)).fence == 4

    async def test_an_earlier_owner_is_fenced_off(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1")), opening("b"))
        await store.write([SessionChange("a", 1, releases=True)])
        found = await claim(store, "a", "two")
        assert found.fence == 2
        for change in (
            SessionChange("a", 1, record=b"late", streams=(stream(2, b"late"),), dropped=(1,)),
            opening("a", record=b"late"),
            SessionChange("a", 1, ends=True),
            SessionChange("a", 1, releases=True),
        ):
            assert await store.write([SessionChange("b", 1, record=b"mine"), change]) == {"a": Refusal.FENCED}
        assert await held(store) == found
        assert (await held(store, "b")).record == b"mine"
        await write(store, adding(stream(2, b"2"), fence=2))
        assert (await held(store)).streams[0].events == (b"1", b"2")

    async def test_what_the_store_has_lost_is_missing(self, store: SessionStore) -> None:
        """A database that went back to an earlier state has neither the last claims nor the last events."""
        await write(store, opening("a", stream(1, b"1", b"2", b"3"), stream(1, b"x", id=2)))
        found = await held(store)
        torn = adding(stream(2, b"y", id=2), stream(7, b"7"))
        assert await store.write([torn]) == {"a": Refusal.MISSING}
        assert await store.write([adding(stream(4, b"4"), fence=2)]) == {"a": Refusal.MISSING}
        assert await held(store) == found
        await write(store, opening("a", stream(7, b"7", first_seq=7), fence=2))
        assert (await held(store))[1:] == (2, b"new", 2, (StoredStream(1, b"head", 7, (b"7",)),))

    async def test_one_batch_may_be_refused_for_every_reason(self, store: SessionStore) -> None:
        await write(store, *(opening(session_id) for session_id in ("ended", "fenced", "fine")))
        await write(store, SessionChange("ended", 1, ends=True), SessionChange("fenced", 1, releases=True))
        await claim(store, "fenced", "two")
        late = [
            SessionChange(name, 1, record=b"late", streams=(stream(1, b"late"),))
            for name in ("ended", "fenced", "fine", "missing")
        ]
        assert await store.write(late) == {
            "ended": Refusal.ENDED,
            "fenced": Refusal.FENCED,
            "missing": Refusal.MISSING,
        }
        assert [found.session_id for found in await store.sessions("", 10)] == ["fenced", "fine"]
        assert (await held(store, "fenced")).record == b"new"
        assert (await held(store, "fine")).record == b"late"

    # Ends.

    async def test_a_session_that_ended_stays_ended(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1")), opening("b"))
        await write(store, SessionChange("a", 1, ends=True))
        assert await store.read("a") is None
        assert await store.claim("a", "two") is None
        assert await store.remove("a") is False
        assert [found.session_id for found in await store.sessions("", 10)] == ["b"]
        for change in (adding(stream(2, b"2")), opening("a", fence=9), SessionChange("a", 1, ends=True)):
            assert await store.write([change]) == {"a": Refusal.ENDED}
        assert await store.read("a") is None

    async def test_a_session_may_end_before_anything_of_it_was_held(self, store: SessionStore) -> None:
        await write(store, SessionChange("a", 1, ends=True))
        assert await store.write([opening("a")]) == {"a": Refusal.ENDED}

    async def test_a_session_is_removed_whoever_owns_it(self, store: SessionStore) -> None:
        await store.renew("one", 600.0)
        await write(store, opening("a", stream(1, b"1")))
        assert await store.remove("a") is True
        assert await store.remove("a") is False
        assert await store.read("a") is None
        assert await store.write([adding(stream(2, b"2")), opening("b")]) == {"a": Refusal.ENDED}

    # Owners.

    async def test_a_claim_raises_the_fence(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1, b"1"), fence=3))
        before = await held(store)
        assert await claim(store, "a", "one") == before._replace(fence=4)
        assert await claim(store, "a", "one") == before._replace(fence=5)
        assert await held(store) == before._replace(fence=5)
        assert await owner(store) == "one"

    async def test_a_session_is_held_while_its_owner_lives(self, store: SessionStore) -> None:
        await write(store, opening("a"))
        await store.renew("one", 600.0)
        await store.renew("two", 600.0)
        found = await store.claim("a", "two")
        if not store.is_shared:
            assert isinstance(found, StoredSession)
            return
        assert found == Held("one")
        assert await owner(store) == "one"
        await write(store, SessionChange("a", 1, record=b"newer"))
        await store.renew("one", 0.05)
        async with asyncio.timeout(DEADLINE_S):
            while isinstance(found := await store.claim("a", "two"), Held):
                await self.pass_time(0.02)
        assert found is not None
        assert found[:4] == ("a", 2, b"newer", 0)
        assert await owner(store) == "two"
        assert await store.claim("a", "one") == Held("two")

    async def test_a_node_that_never_said_it_lives_holds_nothing(self, store: SessionStore) -> None:
        await write(store, opening("a"))
        assert (await claim(store, "a", "two")).fence == 2

    async def test_a_released_session_is_for_who_claims_it(self, store: SessionStore) -> None:
        await store.renew("one", 600.0)
        await store.renew("two", 600.0)
        await write(store, opening("a", stream(1, b"1")))
        await write(store, SessionChange("a", 1, record=b"last", streams=(stream(2, b"2"),), releases=True))
        assert await owner(store) == ""
        found = await claim(store, "a", "two")
        assert found == StoredSession("a", 2, b"last", 1, (StoredStream(1, b"head", 1, (b"1", b"2")),))
        assert await owner(store) == "two"

    async def test_whoever_writes_is_the_owner(self, store: SessionStore) -> None:
        await write(store, opening("a"))
        assert await owner(store) == "one"
        await claim(store, "a", "two")
        await write(store, SessionChange("a", 2, record=b"newer"))
        assert await owner(store) == "two"
        await write(store, SessionChange("a", 2, is_whole=True, record=b"whole", node="two"))
        assert await owner(store) == "two"

    # All that are held.

    async def test_sessions_come_in_pages(self, store: SessionStore) -> None:
        ids = sorted(f"{number * 7919 % 100:02}" for number in range(25))
        await write(store, *(opening(session_id) for session_id in ids))
        found: list[str] = []
        while page := await store.sessions(found[-1] if found else "", 10):
            assert len(page) <= 10
            found += [summary.session_id for summary in page]
        assert found == ids
        assert [summary.session_id for summary in await store.sessions("zz", 10)] == []

    async def test_a_summary_counts_what_is_held(self, store: SessionStore) -> None:
        await write(
            store,
            opening("a", stream(1, b"1", b"22"), stream(1, ANY_BYTES, id=2), record=b"record"),
            opening("b"),
        )
        await write(store, adding(stream(3, b"333", first_seq=2)))
        first, second = await store.sessions("", 10)
        assert first == ("a", "one", b"record", 2, 3, 5 + len(ANY_BYTES))
        assert second == ("b", "one", b"new", 0, 0, 0)

    async def test_idle_sessions_expire(self, store: SessionStore) -> None:
        await write(
            store, *(opening(session_id, stream(1, b"1")) for session_id in ("claimed", "idle", "written"))
        )
        await self.pass_time(4.0)
        await write(store, SessionChange("written", 1, record=b"newer"))
        await claim(store, "claimed", "one")
        await store.expire(3.0)
        assert [found.session_id for found in await store.sessions("", 10)] == ["claimed", "written"]
        assert await store.read("idle") is None
        assert await store.claim("idle", "one") is None
        late = SessionChange("idle", 1, streams=(stream(2, b"2"),))
        assert await store.write([late]) == {"idle": Refusal.MISSING}
        await write(store, opening("idle"))
        assert (await held(store, "idle")).streams == ()

    # Calls.

    async def test_calls_may_run_at_the_same_time(self, store: SessionStore) -> None:
        ids = [f"session-{number}" for number in range(20)]

        async def use(session_id: str) -> None:
            await write(store, opening(session_id))
            for seq in range(1, 11):
                await write(store, adding(stream(seq, b"%d" % seq), session_id=session_id))
                assert len((await held(store, session_id)).streams[0].events) == seq

        async with asyncio.TaskGroup() as tasks:
            for session_id in ids:
                tasks.create_task(use(session_id))
            for _ in range(5):
                tasks.create_task(store.expire(3600.0))
                tasks.create_task(store.sessions("", 100))
        assert {found.events for found in await store.sessions("", 100)} == {10}

    async def test_a_call_that_is_given_up_leaves_a_whole_change_or_none(self, store: SessionStore) -> None:
        await write(store, opening("a", stream(1)))
        seq = 1
        for patience in range(12):
            writing = asyncio.create_task(store.write([adding(stream(seq, b"%d" % seq, b"%d" % (seq + 1)))]))
            for _ in range(patience):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await write(store, SessionChange("a", 1, record=b"%d" % patience))
            found = await held(store)
            assert found.record == b"%d" % patience
            assert len(found.streams[0].events) in (seq - 1, seq + 1)
            seq = len(found.streams[0].events) + 1
        events = (await held(store)).streams[0].events
        assert list(events) == [b"%d" % number for number in range(1, seq)]

    async def test_what_is_held_is_there_again_after_closing(
        self, make_store: Callable[[], SessionStore]
    ) -> None:
        store = make_store()
        await write(store, opening("a", stream(1, b"1"), stream(1, id=5)), opening("b"), opening("c"))
        await write(store, SessionChange("a", 1, streams=(stream(2, b"2", first_seq=2),), dropped=(5,)))
        await write(store, SessionChange("b", 1, ends=True))
        await claim(store, "a", "one")
        found = await held(store)
        await store.aclose()
        store = make_store()
        assert await held(store) == found
        assert found[1:] == (2, b"new", 5, (StoredStream(1, b"head", 2, (b"2",)),))
        assert await store.write([adding(stream(3, b"3"))]) == {"a": Refusal.FENCED}
        assert await store.write([opening("b")]) == {"b": Refusal.ENDED}
        await write(store, adding(stream(3, b"3"), fence=2))
        assert [session.session_id for session in await store.sessions("", 10)] == ["a", "c"]
        await store.aclose()

    async def test_a_store_may_be_open_twice(self, make_store: Callable[[], SessionStore]) -> None:
        """Two processes of one machine at least: a command that looks, and the proxy; or an old one and a new one."""
        first, second = make_store(), make_store()
        await write(first, opening("a", stream(1, b"1")))
        found = await claim(second, "a", "two")
        assert found.streams == (StoredStream(1, b"head", 1, (b"1",)),)
        assert await first.write([adding(stream(2, b"late"))]) == {"a": Refusal.FENCED}
        await write(second, adding(stream(2, b"2"), fence=2))
        assert (await held(first)).streams[0].events == (b"1", b"2")
        assert await first.remove("a")
        assert await second.write([adding(stream(3, b"3"), fence=2)]) == {"a": Refusal.ENDED}
        await first.aclose()
        await write(second, opening("b"))
        await second.aclose()

    async def test_an_owner_hears_of_what_others_removed(
        self, make_store: Callable[[], SessionStore]
    ) -> None:
        owner, other = make_store(), make_store()
        await write(owner, opening("a"), opening("b"), opening("c"))
        assert "a" not in await owner.removed("one")
        assert await other.remove("a")
        assert await other.remove("b")
        assert {"a", "b"} <= {*await owner.removed("one")}
        assert await other.remove("c")
        removed = await owner.removed("one")
        assert "c" in removed
        assert len(removed) == len({*removed})
        await owner.aclose()
        await other.aclose()

    async def test_closing_twice_is_closing(self, make_store: Callable[[], SessionStore]) -> None:
        used, unused = make_store(), make_store()
        await write(used, opening("a"))
        for store in (used, unused, used, unused):
            await store.aclose()


async def write(store: SessionStore, *changes: SessionChange) -> None:
    assert not await store.write(changes)


async def held(store: SessionStore, session_id: str = "a") -> StoredSession:
    """What the store holds of the session, its sequences made comparable."""
    found = await store.read(session_id)
    assert found is not None
    return _comparable(found)


async def claim(store: SessionStore, session_id: str, node: str) -> StoredSession:
    found = await store.claim(session_id, node)
    assert isinstance(found, StoredSession)
    return _comparable(found)


async def owner(store: SessionStore) -> str:
    (found,) = await store.sessions("", 1)
    return found.node


def _comparable(found: StoredSession) -> StoredSession:
    streams = tuple(stored._replace(events=tuple(stored.events)) for stored in found.streams)
    return found._replace(streams=streams)
